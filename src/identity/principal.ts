/** Who makes a call, as far as the credential tells. */
export type Principal =
  | { readonly kind: 'anonymous' }
  /** The bootstrap administrator of TOLLGATE_ADMIN_KEY. */
  | { readonly kind: 'administrator'; readonly roles: readonly Role[] }
  /** An API key and the consumer that it speaks for. */
  | {
      readonly kind: 'key'
      readonly roles: readonly Role[]
      readonly keyId: string
      readonly consumerId: string
      readonly organizationId: string
    }

export type Role = 'admin' | 'consumer'

export const anonymous: Principal = { kind: 'anonymous' }

/** Permissions of each role; "*" holds all. Permissions are named beside each RPC, in its proto. */
const rolePermissions: Readonly<Record<Role, ReadonlySet<string>>> = {
  admin: new Set(['*']),
  consumer: new Set([
    'consumption.route',
    'quota.read',
    'policy.check',
    'services.read',
    'consumers.read',
    'keys.read',
    'keys.write',
    'usage.read',
  ]),
}

/** Permission to name any consumer in a request; without it a caller acts for its own only. */
export const actForAny = 'consumers.actForAny'

export function hasPermission(principal: Principal, permission: string): boolean {
  if (principal.kind === 'anonymous') return false
  return principal.roles.some((role) => rolePermissions[role].has('*') || rolePermissions[role].has(permission))
}
