/**
 * What a caller may give to keys. An administrator, or whoever else calls without a key, gives what its permissions reach.
 * A key, the **maker**, gives no more than it has: no scope beyond its own, no life beyond its own. One that has limits of its
 * own makes, changes and rotates no keys at all: its calls with them would be counted anew.
 */
import { TollgateError } from '../errors.ts'
import type { Tier } from '../registry/records.ts'
import type { Transaction } from '../storage/postgres.ts'
import { requireActive } from './key-life.ts'
import { lifeOf, scopesOfRow } from './key-message.ts'
import { narrowedScopes, type ScopeLists } from './key-scopes.ts'
import { hasLimitRules, type KeyRow, selectKey, selectServiceNames } from './key-store.ts'
import { type Principal, reachOf, roles } from './principal.ts'
import { tiers } from './tier-message.ts'

/** The key that calls, as it stands in the transaction; undefined when no key calls. Throws when it may give nothing. */
export async function makerOf(tx: Transaction, principal: Principal, nowMs: number): Promise<KeyRow | undefined> {
  if (principal.kind === 'anonymous' || principal.keyId === undefined || principal.consumerId === undefined) {
    return undefined
  }
  const maker = await selectKey(tx, principal.consumerId, principal.keyId)
  if (maker === undefined) throw new TollgateError('CREDENTIAL_INVALID', 'The key that makes this call does not exist.')
  requireActive(lifeOf(maker), nowMs)
  if (maker.tier !== null || (await hasLimitRules(tx, maker.id))) {
    const message = `Key ${maker.id} has limits of its own, so it makes and changes no keys. Use another key.`
    throw new TollgateError('KEY_SCOPE_EXCEEDED', message, { metadata: { scope: 'limits', item: maker.id } })
  }
  return maker
}

/**
 * The scopes that a key gets of those asked: a list that is left empty is the maker's. Throws INVALID_ARGUMENT for permissions
 * that no key has, and KEY_SCOPE_EXCEEDED for what the maker may not do itself.
 */
export async function scopesFor(
  tx: Transaction,
  asked: ScopeLists,
  maker: KeyRow | undefined,
  field: string,
): Promise<ScopeLists> {
  const unknown = asked.permissions.find((permission) => !roles.consumer.permissions.has(permission))
  if (unknown !== undefined) {
    const known = [...roles.consumer.permissions].join(', ')
    const description = `"${unknown}" is no permission of a key; these are: ${known}`
    const violation = { field: `${field}.permissions`, description, rule: 'permission' }
    throw new TollgateError('INVALID_ARGUMENT', `${violation.field}: ${description}`, { fields: [violation] })
  }
  if (maker === undefined) return asked
  const names = maker.scope_services.length === 0 ? new Map() : await selectServiceNames(tx, asked.services)
  return narrowedScopes(asked, scopesOfRow(maker), (id) => names.get(id))
}

/** Throws KEY_SCOPE_EXCEEDED when a key may do more than the maker, which then may not change it. */
export async function requireWithin(tx: Transaction, key: KeyRow, maker: KeyRow | undefined): Promise<void> {
  if (maker === undefined || maker.id === key.id) return
  const scopes = scopesOfRow(key)
  const given = await scopesFor(tx, scopes, maker, 'scopes')
  const lists = ['services', 'permissions', 'models'] as const
  const wider = lists.find((list) => scopes[list].length !== given[list].length)
  if (wider === undefined) return
  const message = `Key ${key.id} may do more than the key that makes this call, which can therefore not change it.`
  throw new TollgateError('KEY_SCOPE_EXCEEDED', message, { metadata: { scope: wider, item: key.id } })
}

/**
 * A tier for a key, null for none, and whether it stands in the place of the consumer's limits: it does when its giver
 * administers limits. Throws KEY_SCOPE_EXCEEDED when somebody else gives more than the consumer has.
 */
export function tierFor(
  tier: Tier | null,
  principal: Principal,
  consumerTier: Tier,
): Pick<KeyRow, 'tier' | 'tier_replaces'> {
  if (tier === null) return { tier, tier_replaces: false }
  if (reachOf(principal, 'limits.write') !== undefined) return { tier, tier_replaces: true }
  if (tiers.indexOf(tier) <= tiers.indexOf(consumerTier)) return { tier, tier_replaces: false }
  const message = `tier: the consumer's own is ${consumerTier}; only who administers limits gives a higher one.`
  throw new TollgateError('KEY_SCOPE_EXCEEDED', message, { metadata: { scope: 'tier', item: tier } })
}
