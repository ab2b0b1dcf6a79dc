import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type PracticeBackend, startPracticeBackend } from '../../src/practice/backend.ts'
import { type PracticeRecord, readPracticeLog } from '../../src/practice/log.ts'
import type { Answer, Mode, ReadRequest } from '../../src/providers/provider.ts'
import { createProvider } from '../../src/providers/providers.ts'
import type { EndpointRecord, ServiceRecord } from '../../src/registry/records.ts'
import { createCredentials } from '../../src/routing/credentials.ts'
import {
  createDispatcher,
  type Dispatcher,
  type DispatcherOptions,
  type StreamTask,
  type UnaryTask,
} from '../../src/routing/dispatcher.ts'
import { failureOf } from '../../src/routing/retry-table.ts'
import { endpointRecord, serviceRecord } from './registry-records.ts'

/** A dispatcher before practice backends of its own. */
export interface PracticeDispatch {
  readonly dispatcher: Dispatcher
  readonly backends: readonly PracticeBackend[]
  /** How each attempt so far ended, with the backend's number: "0 reset". */
  readonly attempted: string[]
  /** A service with one endpoint a backend, in the order of priority. */
  service(endpoint?: Partial<EndpointRecord>, count?: number): ServiceRecord
  /** All lines of the backends' logs. */
  log(): PracticeRecord[]
  /** Another dispatcher knows nothing of what went before. */
  renew(changes?: Partial<DispatcherOptions>): Promise<void>
  stop(): Promise<void>
}

const provider = createProvider({ protocol: 'openai', defaultMaxOutputTokens: 64 })

export async function startPracticeDispatch(count: number): Promise<PracticeDispatch> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-dispatch-'))
  const logs = Array.from({ length: count }, (_, i) => join(folder, `${i}.jsonl`))
  const backends = await Promise.all(logs.map((logPath) => startPracticeBackend({ logPath })))
  const attempted: string[] = []
  const create = (changes: Partial<DispatcherOptions> = {}): Dispatcher =>
    createDispatcher({
      connectionsPerHost: 100,
      connectTimeoutMs: 2_000,
      maxResponseBytes: 1_048_576,
      breaker: { failures: 5, windowMs: 10_000, resetMs: 10_000 },
      credentials: createCredentials({}, Date.now),
      now: Date.now,
      observer: {
        breakerChanged: () => {},
        attempted: (_, { endpointId, error }) => {
          attempted.push(`${endpointId} ${error === undefined ? 'ok' : failureOf(error)}`)
        },
        credentialRefused: () => {},
      },
      ...changes,
    })
  let dispatcher = create()
  return {
    get dispatcher() {
      return dispatcher
    },
    backends,
    attempted,
    service(endpoint = {}, endpoints = count) {
      const urls = backends.slice(0, endpoints).map(({ url }) => `${url}/v1/chat/completions`)
      return serviceRecord({
        endpoints: urls.map((url, i) => endpointRecord({ id: String(i), url, priority: i, ...endpoint })),
      })
    },
    log: () => logs.flatMap(readPracticeLog),
    async renew(changes) {
      await dispatcher.close()
      dispatcher = create(changes)
      attempted.length = 0
      for (const { url } of backends) await fetch(`${url}/practice/faults`, { method: 'DELETE' })
    },
    async stop() {
      await Promise.all(backends.map((backend) => backend.close()))
      await dispatcher.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** A whole answer to a payload, read as the gate reads it. `id` begins the attempts' ids. */
export function unaryTask(payload: Uint8Array, id: string): UnaryTask<Answer> {
  const request = read(payload, 'unary')
  return { ...taskOf(request, id), read: (answer) => provider.readAnswer(answer, request) }
}

/** A stream for a payload that asks for one. */
export function streamTask(payload: Uint8Array, id: string): StreamTask {
  const request = read(payload, 'stream')
  return { ...taskOf(request, id), openReader: () => provider.openStream(request) }
}

function read(payload: Uint8Array, mode: Mode): ReadRequest {
  return provider.readRequest({ payload, mode, dialect: 'native', startMs: 0 })
}

function taskOf(request: ReadRequest, id: string): Omit<UnaryTask<never>, 'read'> {
  return {
    attemptId: (number) => `${id}-${number}`,
    prepare: ({ url }, credential) => provider.prepare(request, { url, model: '', credential }),
  }
}
