import { endpointRecord, serviceRecord } from '../../../test/support/registry-records.ts'
import { usageEvent } from '../../../test/support/usage-events.ts'
import type { Call } from '../../call.ts'
import type { GateAnswer, GateRequest, GateStreamItem, Served } from '../../consumption/gate.ts'
import { isReason, type Reason, TollgateError, type TollgateErrorInit } from '../../errors.ts'
import { createBuiltinPolicyEngine } from '../../policy/policy-engine.ts'
import { buildSnapshot } from '../../registry/snapshot.ts'
import type { OpenAiOptions } from './openai-api.ts'

/** Facts of the errors that {@link fixtureApi} throws. */
export const errorFacts: Partial<Record<Reason, TollgateErrorInit>> = {
  INVALID_ARGUMENT: { fields: [{ field: 'payload.messages[0]', description: 'must be an object' }] },
  RATE_LIMITED: {
    retryAfterMs: 1250,
    limits: [
      {
        subject: 'consumer:c1',
        limit: 'tokens_per_minute',
        capacity: 1000,
        remaining: 7,
        unit: 'tokens',
        resetAtMs: Date.now() + 3_600_000,
      },
    ],
  },
  QUOTA_EXCEEDED: { retryAfterMs: 86_400_000 },
  BACKEND_FAILED: { retryAfterMs: 90_000 },
}

/** What a consumer with grants for "alpha" and "beta" has, beside what it has not. */
const services = [
  serviceRecord({ id: 'id-alpha-1', name: 'alpha', version: '1.0.0', endpoints: [endpointRecord()] }),
  serviceRecord({ id: 'id-alpha-2', name: 'alpha', version: '2.0.0', createdAtMs: 1_700_000_000_500 }),
  serviceRecord({ id: 'id-beta', name: 'beta', status: 'deprecated' }),
  serviceRecord({ id: 'id-gamma', name: 'gamma' }),
  serviceRecord({ id: 'id-delta', name: 'delta', status: 'retired' }),
]

/** What the fixture's gate was asked, and what became of its streams. */
export interface Asked {
  readonly requests: GateRequest[]
  /** Pieces that were taken from "flood". */
  taken: number
  /** Streams that are not over. */
  open: number
}

/**
 * A gate for tests of the wire. A model that is the name of a reason is refused so, "crash" fails inside, "held" waits for
 * `held`, whatever becomes of its caller; all others echo their body. Streams of "late:<reason>" fail after a piece, "cut"
 * ends without its end, and "flood" does not end by itself.
 */
export function fixtureApi(consumerId: string, asked: Asked, held: () => Promise<void>): OpenAiOptions {
  const consumer = {
    id: consumerId,
    organizationId: 'o1',
    name: 'consumer',
    tier: 'premium',
    status: 'active',
    grantedServices: new Set(['id-alpha-1', 'id-alpha-2', 'id-beta', 'id-delta']),
    overrides: {},
    projectId: undefined,
    clearance: 'internal',
    homeRegion: '',
  } as const
  const snapshot = buildSnapshot({ version: 1, services, consumers: [consumer], nowMs: 0 })
  return {
    snapshots: { current: () => snapshot },
    policy: createBuiltinPolicyEngine(),
    gate: {
      async route(request, call): Promise<GateAnswer> {
        asked.requests.push(request)
        admit(request, call)
        if (request.serviceId === 'held') await held()
        return { body: request.payload, ...recorded(call) }
      },

      async *stream(request, call): AsyncGenerator<GateStreamItem> {
        asked.requests.push(request)
        asked.open++
        try {
          admit(request, call)
          yield { kind: 'start', requestId: `recorded-${call.id}`, framing: 'sse' }
          yield piece('data: {"n":1}\n\n')
          const { serviceId } = request
          if (serviceId === 'held') await held()
          if (serviceId === 'cut') return
          if (serviceId.startsWith('late:')) throw refusalOf(serviceId.slice('late:'.length))
          for (; serviceId === 'flood'; asked.taken++) {
            call.signal.throwIfAborted()
            yield piece(`data: "${'x'.repeat(65_536)}"\n\n`)
          }
          yield piece('data: {"n":2}\n\n')
          yield { kind: 'end', tail: [Buffer.from('data: [DONE]\n\n')], ...recorded(call) }
        } finally {
          asked.open--
        }
      },
    },
  }
}

function admit({ serviceId }: GateRequest, call: Call): void {
  if (isReason(serviceId) || serviceId === 'crash') throw refusalOf(serviceId)
  for (const [name, value] of announced) call.setResponseHeader(name, value)
}

function refusalOf(name: string): Error {
  if (isReason(name)) return new TollgateError(name, `refused: ${name}`, errorFacts[name])
  return new Error('password of the database is hunter2')
}

function recorded(call: Call): Served {
  return {
    event: usageEvent({ requestId: `recorded-${call.id}` }),
    charge: { nanos: 1500, currency: 'USD', priceVersion: 'v1', components: [] },
    serviceVersion: '1.0.0',
    finishReason: 'stop',
    isReplayed: false,
  }
}

function piece(text: string): GateStreamItem {
  return { kind: 'pieces', pieces: [Buffer.from(text)] }
}

const announced = [
  ['x-ratelimit-limit', '20'],
  ['x-ratelimit-remaining', '19'],
  ['x-ratelimit-reset', '1'],
  ['x-ratelimit-limit-tokens', '1000000'],
  ['x-ratelimit-remaining-tokens', '999000'],
  ['x-ratelimit-reset-tokens', '2592061'],
] as const
