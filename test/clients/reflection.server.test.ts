import { fileURLToPath } from 'node:url'
import type { DescService } from '@bufbuild/protobuf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Health } from '../../gen/grpc/health/v1/health_pb.ts'
import { ServerReflection } from '../../gen/grpc/reflection/v1/reflection_pb.ts'
import { ServerReflection as ServerReflectionAlpha } from '../../gen/grpc/reflection/v1alpha/reflection_pb.ts'
import { declaredServices } from '../../src/tools/declared-services.ts'
import { eventually } from '../support/eventually.ts'
import { parseJson } from '../support/json.ts'
import { chat } from '../support/payloads.ts'
import { demoFacts, startTollgate, type Tollgate } from '../support/tollgate.ts'
import { grpcurl as findGrpcurl, type Ran, run, toolTimeoutMs } from '../support/tools.ts'

const marketplace = await declaredServices()
const services: readonly DescService[] = [...marketplace, Health, ServerReflection, ServerReflectionAlpha]
const route = 'marketplace.v1.ConsumptionService/RouteRequest'
const checkQuota = 'marketplace.v1.ConsumptionService/CheckQuota'

let tollgate: Tollgate
let facts: Record<string, string>
let grpcurlPath: string

beforeAll(async () => {
  grpcurlPath = await findGrpcurl()
  tollgate = await startTollgate({ command: 'dev' })
  facts = await demoFacts(tollgate)
}, toolTimeoutMs)

afterAll(async () => {
  await tollgate?.stop()
})

describe('grpcurl', () => {
  test('lists every service', async () => {
    expect(lines(await grpcurl([], 'list'))).toEqual(typeNames())
  })

  test.each(services.map((service) => [service.typeName, service] as const))('describes %s', async (name, service) => {
    expect(lines(await grpcurl([], 'list', name))).toEqual(
      service.methods.map((method) => `${name}.${method.name}`).sort(),
    )
    const { code, stdout } = await grpcurl([], 'describe', name)
    expect(code).toBe(0)
    for (const method of service.methods) expect(stdout).toContain(`rpc ${method.name} (`)
    for (const { input, output } of service.methods) {
      for (const message of [input, output]) {
        const described = await grpcurl([], 'describe', message.typeName)
        expect(described.stdout).toContain(`${message.typeName} is a message:`)
        for (const field of message.fields) expect(described.stdout).toContain(` ${field.name} = ${field.number}`)
      }
    }
  })

  test('calls RouteRequest and CheckQuota', async () => {
    const routed = await grpcurl(['-d', callBody()], route)
    expect(parseJson(routed.stdout)).toMatchObject({ requestId: expect.any(String), servedBy: { attempt: 1 } })
    const quota = await grpcurl(['-d', JSON.stringify({ serviceId: facts.serviceId })], checkQuota)
    expect(parseJson(quota.stdout)).toMatchObject({ limit: '1000000000', tier: 'enterprise' })
  })

  test('shows why it is refused, in words', async () => {
    const refused = await run(grpcurlPath, ['-plaintext', '-d', callBody(), facts.grpcAddress ?? '', route])
    expect(refused.code).not.toBe(0)
    expect(refused.stderr).toMatch(/Code: Unauthenticated[\s\S]*"reason": "CREDENTIAL_MISSING"/)
  })

  test.each(['', ...marketplace.map((service) => service.typeName)])('is told that "%s" serves', async (service) => {
    const { stdout } = await grpcurl(['-d', JSON.stringify({ service })], 'grpc.health.v1.Health/Check')
    expect(parseJson(stdout)).toEqual({ status: 'SERVING' })
  })
})

describe('buf curl', () => {
  const http2 = ['--http2-prior-knowledge']
  const wires: readonly (readonly [protocol: string, version: string, flags: readonly string[]])[] = [
    ['grpc', 'HTTP/2', http2],
    ['grpcweb', 'HTTP/2', http2],
    ['grpcweb', 'HTTP/1.1', []],
    ['connect', 'HTTP/2', http2],
    ['connect', 'HTTP/1.1', []],
  ]

  test.each(['grpc-v1', 'grpc-v1alpha'])('lists every service and method by reflection %s', async (version) => {
    const reflect = ['--http2-prior-knowledge', '--reflect-protocol', version]
    expect(lines(await bufCurl([...reflect, '--list-services'], ''))).toEqual(typeNames())
    const methods = services.flatMap((service) => service.methods.map(({ name }) => `${service.typeName}/${name}`))
    expect(lines(await bufCurl([...reflect, '--list-methods'], ''))).toEqual(methods.sort())
  })

  test.each(wires)('calls RouteRequest and CheckQuota over %s, %s', async (protocol, _version, flags) => {
    const wire = ['--protocol', protocol, ...flags]
    // Reflection is a bidirectional stream, which needs HTTP/2; over HTTP/1.1 the schema comes from the released image.
    const schema = flags.length === 0 ? ['--schema', image] : []
    const routed = await bufCurl([...wire, ...schema, '-d', callBody()], route)
    expect(routed.code, routed.stderr).toBe(0)
    expect(parseJson(routed.stdout)).toMatchObject({ requestId: expect.any(String), cost: { currency: 'USD' } })
    const quota = await bufCurl([...wire, ...schema, '-d', JSON.stringify({ serviceId: facts.serviceId })], checkQuota)
    expect(parseJson(quota.stdout)).toMatchObject({ limit: '1000000000', tier: 'enterprise' })
    const unknown = await bufCurl([...wire, ...schema, '-d', JSON.stringify({ serviceId: 'none' })], checkQuota)
    expect(unknown.code).not.toBe(0)
    expect(unknown.stderr).toContain('"not_found"')
  })
})

// Last, for it ends the process.
test('Health/Watch says SERVING at once and NOT_SERVING before the process leaves', async () => {
  let seen = ''
  const onStdout = (text: string): void => {
    seen += text
  }
  const args = ['-plaintext', '-d', '{}', facts.grpcAddress ?? '', 'grpc.health.v1.Health/Watch']
  const watching = run(grpcurlPath, args, { onStdout })
  await eventually(() => seen.includes('"SERVING"'))
  expect(seen).not.toContain('NOT_SERVING')
  expect(await tollgate.terminate()).toBe(0)
  expect(statuses((await watching).stdout)).toEqual(['SERVING', 'NOT_SERVING'])
})

async function grpcurl(flags: readonly string[], ...command: readonly string[]): Promise<Ran> {
  const credential = `authorization: Bearer ${facts.key}`
  return run(grpcurlPath, ['-plaintext', '-H', credential, ...flags, facts.grpcAddress ?? '', ...command])
}

async function bufCurl(flags: readonly string[], method: string): Promise<Ran> {
  const url = method === '' ? tollgate.address : `${tollgate.address}/${method}`
  return run(buf, ['curl', '-H', `authorization: Bearer ${facts.key}`, ...flags, url])
}

function callBody(): string {
  return JSON.stringify({ serviceId: facts.serviceId, payload: Buffer.from(chat('hello')).toString('base64') })
}

function typeNames(): string[] {
  return services.map((service) => service.typeName).sort()
}

function lines({ code, stdout, stderr }: Ran): string[] {
  expect(code, stderr).toBe(0)
  return stdout.trim().split('\n').sort()
}

function statuses(text: string): string[] {
  return [...text.matchAll(/"status": "(\w+)"/g)].map((match) => match[1] ?? '')
}

const buf = fileURLToPath(new URL('../../node_modules/.bin/buf', import.meta.url))
const image = fileURLToPath(new URL('../../proto/baseline.binpb', import.meta.url))
