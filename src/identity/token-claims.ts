/** What of a token's claims may say who its bearer is here. */
export interface IdentityClaims {
  /** Names of roles, as written; not all of them need to exist here. */
  readonly roles: readonly string[]
  readonly consumerId: string | undefined
  readonly organizationId: string | undefined
}

/** Names of the claims; a dot leads into an object ("realm_access.roles"), unless a claim has the whole name. */
export interface ClaimNames {
  readonly roles: string
  readonly consumer: string
  readonly organization: string
}

/** Reads the claims that are named; what is absent, or of another type than it should be, is not there. */
export function readClaims(claims: Readonly<Record<string, unknown>>, names: ClaimNames): IdentityClaims {
  return {
    roles: textsOf(claimAt(claims, names.roles)),
    consumerId: idOf(claimAt(claims, names.consumer)),
    organizationId: idOf(claimAt(claims, names.organization)),
  }
}

function claimAt(claims: Readonly<Record<string, unknown>>, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name]
  let value: unknown = claims
  for (const step of name.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined
    value = Reflect.get(value, step)
  }
  return value
}

/** A list of texts, or one text with spaces between, as in "scope". */
function textsOf(value: unknown): readonly string[] {
  const items = typeof value === 'string' ? value.split(' ') : Array.isArray(value) ? value : []
  return items.filter((item): item is string => typeof item === 'string' && item !== '').slice(0, maxRoles)
}

function idOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value.toLowerCase() : undefined
}

const maxRoles = 1000
