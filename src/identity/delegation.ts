import { TollgateError } from '../errors.ts'
import { mayReceive } from '../registry/classification.ts'
import type { NewConsumerRow } from './consumer-store.ts'
import type { OrganizationRow } from './organization-store.ts'
import { type Principal, reachOf } from './principal.ts'
import { tiers } from './tier-message.ts'

/** What decides about a consumer's calls. */
export type ConsumerRights = Pick<
  NewConsumerRow,
  'tier' | 'clearance' | 'granted_services' | 'overrides' | 'home_region'
>

/**
 * Refuses to let somebody who administers one organization give a consumer more than the organization has: throws
 * GRANT_EXCEEDED with every field that would. What a consumer had before it may keep. Who administers all organizations is
 * bound by nothing.
 *
 * @param before undefined for a new consumer.
 */
export function checkDelegation(
  principal: Principal,
  organization: OrganizationRow,
  before: ConsumerRights | undefined,
  after: ConsumerRights,
): void {
  if (reachOf(principal, 'consumers.write') === 'all') return
  const exceeded: { field: string; description: string }[] = []
  const refuse = (field: string, description: string): void => {
    exceeded.push({ field: `consumer.${field}`, description })
  }
  if (after.tier !== before?.tier && tiers.indexOf(after.tier) > tiers.indexOf(organization.tier)) {
    refuse('tier', `is above ${organization.tier}, the tier of the organization`)
  }
  if (after.clearance !== null && after.clearance !== before?.clearance) {
    if (!mayReceive(organization.clearance, after.clearance)) {
      refuse('clearance', `is above ${organization.clearance}, the clearance of the organization`)
    }
  }
  const grantable = new Set([...organization.granted_services, ...(before?.granted_services ?? [])])
  const foreign = after.granted_services.filter((service) => !grantable.has(service))
  if (!organization.granted_services.includes('*') && foreign.length > 0) {
    refuse('granted_services', `the organization may not grant ${foreign.join(', ')}`)
  }
  if (!sameOverrides(after.overrides, before?.overrides ?? {})) {
    refuse('overrides', 'are changed by who administers all organizations')
  }
  const regions = ['', organization.home_region, before?.home_region ?? '']
  if (!regions.includes(after.home_region)) refuse('home_region', 'is chosen by who administers all organizations')
  if (exceeded.length === 0) return
  const summary = exceeded.map(({ field, description }) => `${field}: ${description}`).join('; ')
  throw new TollgateError('GRANT_EXCEEDED', summary, {
    metadata: { field: exceeded.map(({ field }) => field).join(',') },
    fields: exceeded.map((one) => ({ ...one, rule: 'grant' })),
  })
}

function sameOverrides(one: ConsumerRights['overrides'], other: ConsumerRights['overrides']): boolean {
  return (
    one.requestsPerSecond === other.requestsPerSecond &&
    one.requestBurst === other.requestBurst &&
    one.tokensPerMonth === other.tokensPerMonth
  )
}
