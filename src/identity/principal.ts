import type { KeyTier } from '../limits/call-limits.ts'
import { allowsPermission, type KeyScopes } from './key-scopes.ts'

/** Who makes a call, as far as the credential tells. */
export type Principal = Anonymous | Caller

export interface Anonymous {
  readonly kind: 'anonymous'
}

/** Somebody whose credential was found good. */
export interface Caller {
  /** The bootstrap administrator of TOLLGATE_ADMIN_KEY, an API key, whom a token names, or whom a client's certificate does. */
  readonly kind: 'administrator' | 'key' | 'user' | 'workload'
  /**
   * Who it is in logs and in the audit log: "administrator", "key:<key id>", "user:<issuer>|<subject>",
   * "workload:<SPIFFE id, or subject of the certificate>". Never a secret.
   */
  readonly subject: string
  readonly roles: readonly Role[]
  /** Consumer that the credential speaks for; undefined: it has none of its own. */
  readonly consumerId: string | undefined
  /** Organization that it belongs to; undefined: none. */
  readonly organizationId: string | undefined
  /** Undefined unless a key calls. */
  readonly keyId: string | undefined
  /** What the key is narrowed to; absent for others, and for keys that are not. */
  readonly scopes?: KeyScopes | undefined
  /** Limits of the key's own by a tier. */
  readonly keyTier?: KeyTier | undefined
}

export type Role = 'admin' | 'operator' | 'publisher' | 'org_admin' | 'finance' | 'auditor' | 'gateway' | 'consumer'

export const anonymous: Principal = { kind: 'anonymous' }

/** What a permission reaches: the caller's own consumer, all that belongs to its organization, or everything. */
export type Reach = 'consumer' | 'organization' | 'all'

/** What a role may do. */
export interface RoleRights {
  readonly reach: Reach
  /** Permissions as they are named beside each RPC, in its proto; "*" holds all. */
  readonly permissions: ReadonlySet<string>
  /** Roles that it may give to users whom it reaches; none of them reaches further than it does. */
  readonly grants: ReadonlySet<Role>
}

const noRoles: ReadonlySet<Role> = new Set()

/**
 * The rights of each role; what is not here is refused. docs/identity.md shows them as the RPCs that each role may call, and a
 * test holds it to this.
 */
export const roles: Readonly<Record<Role, RoleRights>> = {
  admin: {
    reach: 'all',
    permissions: new Set(['*']),
    grants: new Set(['admin', 'operator', 'publisher', 'org_admin', 'finance', 'auditor', 'gateway', 'consumer']),
  },
  // Runs the platform and changes no identity: neither who may call, nor the keys by which they are known.
  operator: {
    reach: 'all',
    permissions: new Set([
      'organizations.read',
      'projects.read',
      'consumers.read',
      'consumers.list',
      'services.read',
      'services.write',
      'services.approve',
      'services.suspend',
      'prices.write',
      'limits.read',
      'limits.write',
      'policies.read',
      'policies.write',
      'events.read',
      'events.write',
      'policy.check',
      'policy.report',
      'quota.read',
      'usage.read',
    ]),
    grants: noRoles,
  },
  publisher: {
    reach: 'organization',
    permissions: new Set(['services.read', 'services.write', 'prices.write']),
    grants: noRoles,
  },
  org_admin: {
    reach: 'organization',
    permissions: new Set([
      'organizations.read',
      'projects.read',
      'projects.write',
      'consumers.read',
      'consumers.list',
      'consumers.write',
      'keys.read',
      'keys.write',
      'users.read',
      'users.write',
      'services.read',
      'quota.read',
      'usage.read',
      'audit.read',
    ]),
    grants: new Set(['org_admin', 'publisher', 'consumer']),
  },
  finance: {
    reach: 'all',
    permissions: new Set([
      'organizations.read',
      'projects.read',
      'consumers.read',
      'consumers.list',
      'services.read',
      'limits.read',
      'quota.read',
      'usage.read',
    ]),
    grants: noRoles,
  },
  auditor: {
    reach: 'all',
    permissions: new Set([
      'organizations.read',
      'projects.read',
      'consumers.read',
      'consumers.list',
      'keys.read',
      'users.read',
      'services.read',
      'limits.read',
      'policies.read',
      'quota.read',
      'usage.read',
      'audit.read',
    ]),
    grants: noRoles,
  },
  gateway: { reach: 'all', permissions: new Set(['policy.check', 'policy.report']), grants: noRoles },
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
    grants: noRoles,
  },
}

/**
 * How far a permission of the caller reaches, by the widest of its roles; undefined when no role of it holds it, or its key is
 * narrowed to others.
 */
export function reachOf(principal: Principal, permission: string): Reach | undefined {
  if (principal.kind === 'anonymous' || !allowsPermission(principal.scopes, permission)) return undefined
  let widest: Reach | undefined
  for (const role of principal.roles) {
    const { reach, permissions } = roles[role]
    if (!permissions.has(permission) && !permissions.has('*')) continue
    if (widest === undefined || width[reach] > width[widest]) widest = reach
  }
  return widest
}

/** Reaches by their width; a wider one has the higher number. */
export const width: Readonly<Record<Reach, number>> = { consumer: 0, organization: 1, all: 2 }

/** Whether a name is that of a role. */
export function isRole(name: string): name is Role {
  return Object.hasOwn(roles, name)
}

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
