/**
 * Fallback: another service takes over a call that a service failed. It does so as if the caller had asked it: with its own
 * policy check, limits and price, and with a record of its own; the record of the failure stays, and costs nothing.
 */
import type { Call } from '../call.ts'
import { TollgateError } from '../errors.ts'
import type { ServiceRecord } from '../registry/records.ts'
import { findService, type Snapshot, type SnapshotSource } from '../registry/snapshot.ts'
import { conditionOf } from '../routing/fallback-table.ts'
import { failureOf } from '../routing/retry-table.ts'
import type { GateRequest } from './gate.ts'

/** A call on its way to one service. */
export interface Leg {
  /** Names the service that is asked now. */
  readonly request: GateRequest
  /** The service that the caller named, when another one takes over. */
  readonly takenOver: ServiceRecord | undefined
}

/**
 * Runs a call, and runs it again with each fallback of its service whose conditions the last failure fulfils, until one
 * answers. A fallback that refuses the call (policy, limits, price, another protocol) is passed over. Throws the failure of
 * the service that the caller named, with what became of the fallbacks, or the end of the call.
 */
export function withFallbacks<T>(
  snapshots: Pick<SnapshotSource, 'current'>,
  request: GateRequest,
  call: Pick<Call, 'signal'>,
  run: (leg: Leg) => Promise<T>,
): Promise<T> {
  return run({ request, takenOver: undefined }).catch((error: unknown) =>
    fallBack(snapshots.current(), request, call, run, error),
  )
}

async function fallBack<T>(
  snapshot: Snapshot,
  request: GateRequest,
  call: Pick<Call, 'signal'>,
  run: (leg: Leg) => Promise<T>,
  error: unknown,
): Promise<T> {
  const service = findService(snapshot, request.serviceId)
  if (!(error instanceof TollgateError) || service === undefined) throw error
  const passedOver: string[] = []
  let condition = conditionOf(error)
  for (const fallback of service.fallbacks) {
    // A call that goes on without its caller goes to nobody else.
    if (condition === undefined || call.signal.aborted) break
    if (!fallback.on.includes(condition)) continue
    const next = findService(snapshot, fallback.serviceId)
    if (next === undefined || !understands(next, service, request)) {
      passedOver.push(`${fallback.serviceId}: ${next === undefined ? 'SERVICE_NOT_FOUND' : 'another protocol'}`)
      continue
    }
    try {
      return await run({ request: { ...request, serviceId: next.id }, takenOver: service })
    } catch (refusal) {
      if (!(refusal instanceof TollgateError)) throw refusal
      if (failureOf(refusal) === 'call_ended') throw refusal
      passedOver.push(`${next.name}: ${refusal.reason}`)
      condition = conditionOf(refusal) ?? condition
    }
  }
  throw passedOver.length === 0 ? error : error.withMetadata({ fallbacks: passedOver.join(', ') })
}

/** A payload in a service's own format means nothing to a service of another protocol. */
function understands(next: ServiceRecord, service: ServiceRecord, { dialect }: GateRequest): boolean {
  return dialect === 'openai' || formatOf(next) === formatOf(service)
}

/** Azure takes the payloads of the OpenAI API. */
function formatOf({ endpoints }: ServiceRecord): string | undefined {
  const protocol = endpoints[0]?.protocol
  return protocol === 'azure_openai' ? 'openai' : protocol
}
