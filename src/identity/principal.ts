/** Who makes a call, as far as the credential tells. */
export type Principal = Anonymous | Caller

export interface Anonymous {
  readonly kind: 'anonymous'
}

/** Somebody whose credential was found good. */
export interface Caller {
  /** The bootstrap administrator of TOLLGATE_ADMIN_KEY, or an API key. */
  readonly kind: 'administrator' | 'key'
  /** Who it is in logs and in the audit log: "administrator", "key:<key id>". Never a secret. */
  readonly subject: string
  readonly roles: readonly Role[]
  /** Consumer that the credential speaks for; undefined: it has none of its own. */
  readonly consumerId: string | undefined
  /** Organization that it belongs to; undefined: none. */
  readonly organizationId: string | undefined
  /** Undefined unless a key calls. */
  readonly keyId: string | undefined
}

export type Role = 'admin' | 'consumer'

export const anonymous: Principal = { kind: 'anonymous' }

/** What a permission reaches: the caller's own consumer, all that belongs to its organization, or everything. */
export type Reach = 'consumer' | 'organization' | 'all'

/** Permissions of each role, and how far they reach; "*" holds all. Permissions are named beside each RPC, in its proto. */
export const roles: Readonly<Record<Role, { readonly reach: Reach; readonly permissions: ReadonlySet<string> }>> = {
  admin: { reach: 'all', permissions: new Set(['*']) },
  consumer: {
    reach: 'consumer',
    permissions: new Set([
      'consumption.route',
      'quota.read',
      'policy.check',
      'services.read',
      'consumers.read',
      'keys.read',
      'keys.write',
      'usage.read',
    ]),
  },
}

/** How far a permission of the caller reaches, by the widest of its roles; undefined when no role of it holds it. */
export function reachOf(principal: Principal, permission: string): Reach | undefined {
  if (principal.kind === 'anonymous') return undefined
  let widest: Reach | undefined
  for (const role of principal.roles) {
    const { reach, permissions } = roles[role]
    if (!permissions.has(permission) && !permissions.has('*')) continue
    if (widest === undefined || width[reach] > width[widest]) widest = reach
  }
  return widest
}

const width: Readonly<Record<Reach, number>> = { consumer: 0, organization: 1, all: 2 }

/** To whom something belongs that a caller names. */
export interface Owner {
  /** Undefined: it belongs to no single consumer. */
  readonly consumerId?: string | undefined
  /** Undefined: nobody knows. */
  readonly organizationId: string | undefined
}

/** Whether the caller's permission reaches what belongs to `owner`. */
export function reaches(principal: Principal, permission: string, owner: Owner): boolean {
  if (principal.kind === 'anonymous') return false
  const reach = reachOf(principal, permission)
  if (reach === 'all') return true
  if (reach === undefined) return false
  if (principal.consumerId !== undefined && principal.consumerId === owner.consumerId) return true
  return (
    reach === 'organization' && owner.organizationId !== undefined && principal.organizationId === owner.organizationId
  )
}
