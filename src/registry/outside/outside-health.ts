import type { RegistryState } from './registry-watch.ts'

/** Whether the outside registry is followed; degraded: calls go on by what was known of it, and something needs a look. */
export function outsideHealth(state: RegistryState | undefined): {
  readonly status: 'ok' | 'degraded'
  readonly detail: string
} {
  if (state === undefined) return { status: 'ok', detail: 'another replica looks at REGISTRY_URL' }
  const { last, failing } = state
  const read = last === undefined ? 'not read yet' : `read ${new Date(last.atMs).toISOString()}`
  if (failing !== undefined) return { status: 'degraded', detail: `${failing}; ${read}: what was known holds` }
  if (last === undefined) return { status: 'ok', detail: read }
  const { listed, followed, heldBack, passedOver } = last
  const parts = [`${listed} services listed, ${followed} taken over, ${read}`]
  if (heldBack > 0)
    parts.push(`the list lacks ${heldBack} services, which is too many: none is touched (REGISTRY_GONE_SHARE)`)
  if (passedOver.size > 0) parts.push(`${passedOver.size} passed over: ${reasonsOf(passedOver)}`)
  return { status: heldBack > 0 ? 'degraded' : 'ok', detail: parts.join('; ') }
}

function reasonsOf(passedOver: ReadonlyMap<string, string>): string {
  return [...passedOver]
    .slice(0, 5)
    .map(([key, reason]) => `${key} (${reason.replace(/\.$/, '')})`)
    .join(', ')
}
