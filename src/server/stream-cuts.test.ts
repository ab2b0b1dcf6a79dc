import { mkdtemp, rm } from 'node:fs/promises'
import { type ClientHttp2Session, connect } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, toBinary } from '@bufbuild/protobuf'
import fc from 'fast-check'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConsumptionService, StreamRequestRequestSchema } from '../../gen/marketplace/v1/consumption_pb.ts'
import { testCall } from '../../test/support/invoke.ts'
import { consumerRecord, endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import { through } from '../../test/support/through-limits.ts'
import { createConsumptionService } from '../consumption/consumption-service.ts'
import { createGate } from '../consumption/gate.ts'
import { createResponseCache } from '../consumption/response-cache.ts'
import { newId } from '../ids.ts'
import type { Limits } from '../limits/limits.ts'
import { createLocalLimits } from '../limits/local-limits.ts'
import type { UsageEvent } from '../metering/usage-event.ts'
import { anthropicStreams } from '../providers/fixtures/anthropic.ts'
import { ollamaStreams } from '../providers/fixtures/ollama.ts'
import { openaiStreams } from '../providers/fixtures/openai.ts'
import { cutAt } from '../providers/fixtures/stream-fixture.ts'
import { buildSnapshot } from '../registry/snapshot.ts'
import { BackendCall } from '../routing/backend-call.ts'
import type { Attempt, Dispatcher } from '../routing/dispatcher.ts'
import { StreamedAnswer } from '../routing/receivers.ts'
import type { TransportController } from '../routing/transport.ts'
import { as, type Fixture, keys, ownConsumer, startFixture } from './fixture.ts'
import { envelope } from './plain-formats.ts'
import { register } from './rpc.ts'

/**
 * A backend's stream through everything that is between it and the caller, with the backend's bytes cut in any way: what the
 * caller gets, and what the record says, must not tell how they were cut.
 */

const nowMs = Date.now()
const protocols = ['openai', 'anthropic', 'ollama'] as const
const services = protocols.map((protocol) =>
  serviceRecord({ id: newId(), name: protocol, endpoints: [endpointRecord({ protocol })] }),
)
const consumer = consumerRecord({ id: ownConsumer, grantedServices: new Set(services.map(({ id }) => id)) })
const snapshot = buildSnapshot({ version: 1, nowMs: 0, services, consumers: [consumer] })

/** What the backend sends next: chunks, and whether the others have their turn after each. */
let coming: { readonly chunks: readonly Uint8Array[]; readonly inTurns: boolean }
let recorded: UsageEvent | undefined

const controller: TransportController = { abort: () => {}, pause: () => {}, resume: () => {} }

/** Answers each call with what is coming. */
const dispatcher: Pick<Dispatcher, 'dispatch' | 'open'> = {
  dispatch: () => Promise.reject(new Error('only streams are asked for')),
  async open(_service, task) {
    const { chunks, inTurns } = coming
    const answer = new StreamedAnswer(task.openReader())
    const post = new BackendCall({
      transport: {
        isFull: false,
        close: async () => {},
        async dispatch(_, handler) {
          await Promise.resolve()
          handler.onRequestStart(controller)
          handler.onResponseStart(controller, 200, {})
          for (const chunk of chunks) {
            handler.onResponseData(controller, Buffer.from(chunk))
            if (inTurns) await new Promise((resolve) => setImmediate(resolve))
          }
          handler.onResponseEnd(controller, {})
        },
      },
      request: { path: '/', method: 'POST', headers: {}, body: Buffer.alloc(0) },
      isGrpc: false,
      deadlines: { connect: 1_000, headers: undefined, firstToken: undefined, idle: undefined, total: undefined },
      ending: testCall(),
      now: () => nowMs,
      sink: answer,
    })
    const attempt: Attempt = {
      id: newId(),
      number: 1,
      endpointId: 'endpoint-1',
      startMs: nowMs,
      durationMs: 7,
      headersMs: 3,
      firstTokenMs: 5,
      status: 200,
      receivedBytes: 0,
      error: undefined,
    }
    const over = answer.over().then((error) => ({ ...attempt, error }))
    try {
      return { attempts: [attempt], value: await answer.value(post), over }
    } catch {
      const { error } = await over
      if (error === undefined) throw new Error('a stream failed without an error')
      return { attempts: [{ ...attempt, error }], error }
    }
  },
}

let folder: string
let limits: Limits
let fixture: Fixture
let session: ClientHttp2Session

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-cuts-'))
  limits = await createLocalLimits({ folder, seed: async () => 0, log: pino({ level: 'silent' }) })
  const gate = createGate({
    snapshots: { current: () => snapshot },
    policy: undefined,
    limits: {
      ...through(limits),
      settle: (settlement) => {
        recorded = settlement.event
        return limits.settle(settlement)
      },
    },
    dispatcher,
    cache: createResponseCache(0, Date.now),
    openCalls: { follow: () => () => {} },
    rateLimiting: false,
    observer: {
      refused: () => {},
      recorded: () => {},
      thresholdPassed: () => {},
      policyDecided: () => {},
      cacheAsked: () => {},
    },
    log: pino({ level: 'silent' }),
    now: () => nowMs,
    newId,
  })
  const snapshots = { current: () => snapshot }
  const service = createConsumptionService({
    gate,
    snapshots,
    limits,
    keyOwner: async () => undefined,
    rateLimiting: false,
    now: () => nowMs,
    newId,
  })
  fixture = await startFixture({
    services: [register(ConsumptionService, service)],
    openai: { gate, snapshots, policy: undefined },
    newId,
  })
  session = connect(fixture.server.address)
})
afterAll(async () => {
  session?.close()
  await fixture?.close()
  await limits?.close()
  await rm(folder, { recursive: true, force: true })
})

/** What a caller got, and what was recorded, without what differs from call to call. */
interface Outcome {
  readonly body: string
  readonly status: string
  readonly recorded: unknown
}

type Wire = (model: string, path: string) => Promise<{ readonly body: Buffer; readonly status: string }>

function payload(model: string, path: string): string {
  return JSON.stringify({ model, stream: true, ...questions[path] })
}

const wires: Readonly<Record<'SSE' | 'gRPC', Wire>> = {
  async SSE(model, path) {
    const headers = { 'content-type': 'application/json', ...as(keys.own).headers }
    const answer = await fetch(fixture.server.address + path, { method: 'POST', headers, body: payload(model, path) })
    // The LF of a CRLF that was cut in two may come later, or never.
    const text = (await answer.text()).replace(/\r\n?/g, '\n').replace(/\n{2,}/g, '\n\n')
    return { body: Buffer.from(text), status: String(answer.status) }
  },

  async gRPC(model, path) {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/marketplace.v1.ConsumptionService/StreamRequest',
      'content-type': 'application/grpc',
      ...as(keys.own).headers,
    })
    const asked = create(StreamRequestRequestSchema, { serviceId: model, payload: Buffer.from(payload(model, path)) })
    stream.end(envelope(0, toBinary(StreamRequestRequestSchema, asked)))
    let status = ''
    stream.on('trailers', (trailers) => {
      status = `${trailers['grpc-status']} ${trailers['grpc-message']}`
    })
    const chunks: Buffer[] = []
    for await (const chunk of stream) chunks.push(chunk)
    return { body: Buffer.concat(chunks), status }
  },
}

async function outcomeOf(wire: Wire, model: string, path: string, sent: typeof coming): Promise<Outcome> {
  coming = sent
  recorded = undefined
  const { body, status } = await wire(model, path)
  const { id: _, requestId = '', ...known } = recorded ?? { id: '' }
  const text = body.toString('latin1').replaceAll(requestId || 'none', 'its id')
  return { body: text, status, recorded: { ...known, startMs: 0 } }
}

const questions: Readonly<Record<string, object>> = {
  '/v1/chat/completions': { messages: [{ role: 'user', content: 'x' }], max_tokens: 50 },
  '/v1/completions': { prompt: 'x' },
  '/v1/responses': { input: 'x' },
}

const paths = { chat: '/v1/chat/completions', completion: '/v1/completions', responses: '/v1/responses' } as const

function pathOf(kind: string | undefined): string {
  return kind === 'completion' || kind === 'responses' ? paths[kind] : paths.chat
}

const cases = [
  ...openaiStreams.map((fixture) => ({ ...fixture, model: 'openai', wire: 'SSE' as const })),
  ...openaiStreams.map((fixture) => ({ ...fixture, model: 'openai', wire: 'gRPC' as const })),
  ...anthropicStreams.map((fixture) => ({ ...fixture, model: 'anthropic', wire: 'SSE' as const })),
  ...anthropicStreams.map((fixture) => ({ ...fixture, model: 'anthropic', wire: 'gRPC' as const })),
  ...ollamaStreams.map((fixture) => ({ ...fixture, model: 'ollama', wire: 'gRPC' as const })),
]

describe.each(cases)('$name of a backend, over $wire', ({ stream, model, kind, wire }) => {
  const whole = Buffer.from(stream)

  test('leaves and is recorded the same however it is cut, whole or broken off', async () => {
    const cut = fc.record({
      places: fc.array(fc.nat(whole.length), { maxLength: 30 }),
      inTurns: fc.boolean(),
      length: fc.oneof({ weight: 2, arbitrary: fc.constant(whole.length) }, fc.nat(whole.length)),
    })
    await fc.assert(
      fc.asyncProperty(cut, async ({ places, inTurns, length }) => {
        const bytes = whole.subarray(0, length)
        const ask = (sent: typeof coming) => outcomeOf(wires[wire], model, pathOf(kind), sent)
        const uncut = await ask({ chunks: [bytes], inTurns: false })
        expect(
          await ask({
            chunks: cutAt(
              bytes,
              places.filter((at) => at <= length),
            ),
            inTurns,
          }),
        ).toEqual(uncut)
        if (wire === 'gRPC') expect(uncut.body).not.toContain('[DONE]')
        if (length === whole.length) {
          expect(uncut).toMatchObject({ recorded: { status: 'succeeded', usageSource: 'provider' } })
        }
      }),
      { numRuns: 15 },
    )
  })
})
