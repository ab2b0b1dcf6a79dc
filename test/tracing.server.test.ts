import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { eventually } from './support/eventually.ts'
import { chat } from './support/payloads.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { type RedisServer, startRedisServer } from './support/redis-server.ts'
import { makeTenant } from './support/tenant.ts'
import { startTollgate, type Tollgate } from './support/tollgate.ts'

const adminKey = 'an-administrator-key-for-tests-only-0002'
const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'

let postgres: PostgresServer
let redis: RedisServer
let tollgate: Tollgate
let collector: Server
let backend: Server
/** Bodies of OTLP exports, as latin1: ids and names stand in them as they are. */
const exports: Buffer[] = []
let backendHeaders: IncomingHttpHeaders = {}

beforeAll(async () => {
  collector = await listen((body) => {
    exports.push(body)
    return ''
  })
  backend = await listen((_, headers) => {
    backendHeaders = headers
    return JSON.stringify({
      model: 'm',
      choices: [{ message: { content: 'a' } }],
      usage: { prompt_tokens: 3, completion_tokens: 4 },
    })
  })
  postgres = await startPostgresServer({ migrated: false })
  redis = await startRedisServer()
  tollgate = await startTollgate({
    command: 'serve',
    env: {
      DATABASE_URL: postgres.url,
      REDIS_URL: redis.url,
      TOLLGATE_ADMIN_KEY: adminKey,
      OTEL_EXPORTER_OTLP_ENDPOINT: url(collector),
      OTEL_TRACES_SAMPLER: 'parentbased_always_off',
      OTEL_BSP_SCHEDULE_DELAY: '100',
    },
  })
})

afterAll(async () => {
  await tollgate?.stop()
  await redis?.stop()
  await postgres?.stop()
  for (const server of [collector, backend]) {
    server?.closeAllConnections()
    await new Promise((resolve) => server?.close(resolve))
  }
})

test('one trace leads from the caller to the backend, with the spans of Redis and Postgres', async () => {
  const { serviceId, key } = await makeTenant(tollgate, adminKey, 'traced', url(backend))
  const response = await fetch(`${tollgate.address}/marketplace.v1.ConsumptionService/RouteRequest`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${key}`,
      'content-type': 'application/json',
      traceparent: `00-${traceId}-00f067aa0ba902b7-01`,
    },
    body: JSON.stringify({ serviceId, payload: Buffer.from(chat('traced')).toString('base64') }),
  })
  expect(response.status).toBe(200)
  expect(backendHeaders.traceparent).toMatch(new RegExp(`^00-${traceId}-(?!00f067aa0ba902b7)[0-9a-f]{16}-01$`))
  const names = [
    'marketplace.v1.ConsumptionService/RouteRequest',
    'EVALSHA admit',
    'POST',
    'EVALSHA settle',
    'usage_records insert',
  ]
  const inTrace = Buffer.from(traceId, 'hex').toString('latin1')
  await eventually(() => names.every((name) => spansOf(inTrace).includes(name)), {
    what: () => `${names.join(', ')} in one trace; there is ${spansOf(inTrace).join(', ')}`,
  })
  expect(Buffer.concat(exports).toString('latin1')).not.toContain(key)
})

/** Names of the exported spans of a trace: in OTLP's protobuf a span's trace id precedes its name (fields 1 and 5). */
function spansOf(id: string): string[] {
  return exports.flatMap((body) => {
    const [, ...spans] = body.toString('latin1').split(`\x0a\x10${id}`)
    return spans.flatMap((span) => /\x2a.([\x20-\x7e]+?)\x30/s.exec(span)?.[1] ?? [])
  })
}

async function listen(answer: (body: Buffer, headers: IncomingHttpHeaders) => string): Promise<Server> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(Buffer.from(chunk))
    response.setHeader('content-type', 'application/json').end(answer(Buffer.concat(chunks), request.headers))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

function url(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
