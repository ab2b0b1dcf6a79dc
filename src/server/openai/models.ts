import { policyDenial } from '../../consumption/refusal.ts'
import { requireModelScope, requireServiceScope, resolveConsumer, resolveService } from '../../consumption/resolve.ts'
import { allowsModel, allowsService } from '../../identity/key-scopes.ts'
import type { Principal } from '../../identity/principal.ts'
import type { PolicyEngine } from '../../policy/policy-engine.ts'
import { type ServiceRecord, takesCalls } from '../../registry/records.ts'
import type { Snapshot } from '../../registry/snapshot.ts'

/** A service as the OpenAI API lists it. */
export interface Model {
  /** The name, which stands for the version that it means at the moment. */
  readonly id: string
  readonly object: 'model'
  /** Unix seconds. */
  readonly created: number
  readonly owned_by: string
}

/**
 * The services that take calls, that the policy lets a consumer use, and that its key is not narrowed away from, by name. `policy` undefined allows all. Throws
 * CONSUMER_NOT_FOUND and CONSUMER_INACTIVE.
 */
export async function listModels(
  snapshot: Snapshot,
  policy: PolicyEngine | undefined,
  consumerId: string,
  principal: Principal,
): Promise<{ readonly object: 'list'; readonly data: readonly Model[] }> {
  const consumer = resolveConsumer(snapshot, consumerId)
  const data: Model[] = []
  for (const [name, service] of snapshot.servicesByName) {
    if (!takesCalls(service.status) || !isInScope(principal, service)) continue
    const decision = await policy?.checkAccess({ consumer, service })
    if (decision?.allowed !== false) data.push(modelOf(name, service))
  }
  return { object: 'list', data: data.sort((a, b) => (a.id < b.id ? -1 : 1)) }
}

/** One service by what `model` may say. Throws as a call to it would. */
export async function getModel(
  snapshot: Snapshot,
  policy: PolicyEngine | undefined,
  consumerId: string,
  principal: Principal,
  id: string,
): Promise<Model> {
  const consumer = resolveConsumer(snapshot, consumerId)
  const service = resolveService(snapshot, id)
  requireServiceScope(principal, service)
  requireModelScope(principal, service.name)
  const decision = await policy?.checkAccess({ consumer, service })
  if (decision?.allowed === false) throw policyDenial(decision, service.id)
  return modelOf(id, service)
}

function isInScope(principal: Principal, service: ServiceRecord): boolean {
  if (principal.kind === 'anonymous' || principal.scopes === undefined) return true
  return allowsService(principal.scopes, service) && allowsModel(principal.scopes, service.name)
}

function modelOf(id: string, service: ServiceRecord): Model {
  return { id, object: 'model', created: Math.floor(service.createdAtMs / 1000), owned_by: 'tollgate' }
}
