import type { ConsumptionService } from '../../gen/marketplace/v1/consumption_pb.ts'
import type { Call, Handlers } from '../call.ts'
import { TollgateError } from '../errors.ts'
import { ownConsumer } from '../identity/own-consumer.ts'
import { type KeyTier, limitsOfCall } from '../limits/call-limits.ts'
import type { Limit, LimitState, Limits } from '../limits/limits.ts'
import { costMessage, usageMessage } from '../metering/messages.ts'
import { chargeFor, dearestCharge } from '../pricing/price.ts'
import type { Dialect } from '../providers/provider.ts'
import { consumersKeyNotFound } from '../registry/not-found.ts'
import type { ConsumerRecord, ServiceRecord } from '../registry/records.ts'
import type { SnapshotSource } from '../registry/snapshot.ts'
import type { Gate } from './gate.ts'
import { idempotencyKeyOf } from './idempotency.ts'
import { keyIdOf, keyOf, planCall } from './plan.ts'
import { limitStatusMessage } from './quota.ts'
import { resolveConsumer, resolveService } from './resolve.ts'
import { servedMessage } from './served-message.ts'
import { StreamMessages } from './stream-messages.ts'

export interface ConsumptionServiceOptions {
  readonly gate: Gate
  readonly snapshots: Pick<SnapshotSource, 'current'>
  readonly limits: Pick<Limits, 'read'>
  /** Whose a key is, and its tier; undefined when there is no such key. */
  readonly keyOwner: (keyId: string) => Promise<KeyOwner | undefined>
  /** As of the gate. */
  readonly rateLimiting: boolean
  /** Unix milliseconds. */
  readonly now: () => number
  /** UUIDv7. */
  readonly newId: () => string
}

export interface KeyOwner {
  readonly consumerId: string
  readonly tier: KeyTier | undefined
}

/** marketplace.v1.ConsumptionService on the gate. */
export function createConsumptionService(
  options: ConsumptionServiceOptions,
): Handlers<typeof ConsumptionService.method> {
  const { gate, snapshots, limits, keyOwner, rateLimiting, now, newId } = options

  function partiesOf(
    request: { readonly consumerId: string; readonly serviceId: string },
    call: Call,
  ): { consumer: ConsumerRecord; service: ServiceRecord } {
    const snapshot = snapshots.current()
    const consumer = resolveConsumer(snapshot, ownConsumer(request.consumerId, call.principal))
    return { consumer, service: resolveService(snapshot, request.serviceId) }
  }

  async function standingsOf(asked: readonly Limit[]): Promise<{ limit: Limit; state: LimitState }[]> {
    const states = await limits.read(asked)
    return asked.map((limit, index) => ({ limit, state: states[index] ?? unread() }))
  }

  async function stateOf(limit: Limit): Promise<LimitState> {
    const [state] = await limits.read([limit])
    return state ?? unread()
  }

  return {
    async routeRequest(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      const idempotencyKey = idempotencyKeyOf(request.idempotencyKey, call)
      const { serviceId, payload, metadata } = request
      const asked = { consumerId, serviceId, payload, metadata, idempotencyKey, dialect }
      const served = await gate.route(asked, call)
      return { responseData: served.body, ...servedMessage(served) }
    },

    streamRequest(request, call) {
      const consumerId = ownConsumer(request.consumerId, call.principal)
      const idempotencyKey = idempotencyKeyOf(request.idempotencyKey, call)
      const { serviceId, payload, metadata } = request
      const asked = { consumerId, serviceId, payload, metadata, idempotencyKey, dialect }
      return new StreamMessages(gate.stream(asked, call))
    },

    async checkQuota(request, call) {
      const { consumer, service } = partiesOf(request, call)
      const rules = snapshots.current().limitRules
      const quota = limitsOfCall(rules, { consumer, serviceId: service.id, keyId: '', atMs: now() }).find(isTokenQuota)
      if (quota === undefined) throw new TollgateError('INTERNAL', 'The consumer has no token quota.')
      const state = await stateOf(quota)
      const remaining = Math.max(0, state.remaining)
      return {
        remaining: BigInt(remaining),
        limit: BigInt(quota.capacity),
        resetAt: BigInt(state.resetAtMs / 1000),
        used: BigInt(quota.capacity - state.remaining),
        tier: consumer.tier,
        exceeded: remaining === 0,
        serviceId: service.id,
        consumerId: consumer.id,
      }
    },

    async getQuota(request, call) {
      const { consumer, service } = partiesOf(request, call)
      const isOwn = call.principal.kind !== 'anonymous' && call.principal.consumerId === consumer.id
      const ownKeyId = isOwn ? keyIdOf(call) : ''
      const keyId = request.keyId === '' ? ownKeyId : request.keyId
      if (call.principal.kind === 'key' && keyId !== ownKeyId) throw foreignKey()
      const owner = keyId === ownKeyId ? undefined : await keyOwner(keyId)
      if (keyId !== ownKeyId && owner?.consumerId !== consumer.id) throw consumersKeyNotFound(keyId, consumer.id)
      const keyTier = keyId === ownKeyId ? keyOf(call).keyTier : owner?.tier
      const rules = snapshots.current().limitRules
      const asked = limitsOfCall(rules, { consumer, serviceId: service.id, keyId, keyTier, atMs: now() })
      return {
        consumerId: consumer.id,
        serviceId: service.id,
        tier: consumer.tier,
        limits: (await standingsOf(asked)).map(({ limit, state }) => limitStatusMessage(limit, state)),
      }
    },

    async estimateCost(request, call) {
      const { consumer, service } = partiesOf(request, call)
      const { payload } = request
      const body = {
        consumerId: consumer.id,
        serviceId: service.id,
        payload,
        metadata: {},
        idempotencyKey: '',
        dialect,
      }
      const rules = snapshots.current().limitRules
      const cache = undefined
      const limitsOf = rateLimiting ? limitsOfCall : undefined
      const plan = planCall(body, 'unary', call, consumer, service, { rules, limitsOf, cache, newId, nowMs: now() })
      const standings = await standingsOf(plan.costs.map((cost) => cost.limit))
      const reservations = standings.map(({ limit, state }, index) => {
        const amount = plan.costs[index]?.amount ?? 0
        return { limit, state, amount, hasRoom: limit.capacity > 0 && amount <= state.remaining }
      })
      return {
        serviceId: service.id,
        usage: usageMessage(plan.reserved, 'estimated'),
        cost: costMessage(chargeFor(plan.price, plan.reserved)),
        reservedNanos: BigInt(dearestCharge(plan.price, plan.reserved)),
        reservations: reservations.map(({ limit, state, amount }) => ({
          limit: limitStatusMessage(limit, state),
          amount: BigInt(amount),
        })),
        admissible: reservations.every(({ hasRoom }) => hasRoom),
      }
    },
  }
}

/** Payloads of these RPCs are of the service's own API. */
const dialect: Dialect = 'native'

/** Keys of others have limits of others; an administrator may look at any key of the consumer that it names. */
function foreignKey(): TollgateError {
  const description = 'must be the key that is the credential, or empty'
  return new TollgateError('CONSUMER_MISMATCH', `key_id ${description}`, {
    fields: [{ field: 'key_id', description }],
    metadata: { field: 'key_id' },
  })
}

function unread(): never {
  throw new TollgateError('INTERNAL', 'The limits could not be read.')
}

/** Of the consumer for this service: the first of its name. */
function isTokenQuota(limit: Limit): boolean {
  return limit.name === 'tokens_per_month'
}
