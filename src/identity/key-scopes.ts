import { TollgateError } from '../errors.ts'

/** What a key is narrowed to. An empty set narrows nothing. */
export interface KeyScopes {
  /** Ids or names of services; a name means all versions. */
  readonly services: ReadonlySet<string>
  readonly permissions: ReadonlySet<string>
  readonly models: ReadonlySet<string>
}

/** The same as lists, as it is stored and shown. */
export interface ScopeLists {
  readonly services: readonly string[]
  readonly permissions: readonly string[]
  readonly models: readonly string[]
}

/** For the path of calls; undefined when nothing is narrowed, so that such keys cost nothing there. */
export function keyScopes({ services, permissions, models }: ScopeLists): KeyScopes | undefined {
  if (services.length + permissions.length + models.length === 0) return undefined
  return { services: new Set(services), permissions: new Set(permissions), models: new Set(models) }
}

/** Whether a key may use a permission that its role has. */
export function allowsPermission(scopes: KeyScopes | undefined, permission: string): boolean {
  return scopes === undefined || scopes.permissions.size === 0 || scopes.permissions.has(permission)
}

export function allowsService(scopes: KeyScopes, service: { readonly id: string; readonly name: string }): boolean {
  const { services } = scopes
  return services.size === 0 || services.has(service.id) || services.has(service.name)
}

export function allowsModel({ models }: KeyScopes, model: string): boolean {
  return models.size === 0 || models.has(model)
}

/**
 * The scopes of a key that is made with a narrowed key: a list that is left empty is the maker's. Throws KEY_SCOPE_EXCEEDED
 * for what the maker may not do itself.
 *
 * @param nameOf name of a service by its id; undefined for what is no id.
 */
export function narrowedScopes(
  asked: ScopeLists,
  maker: ScopeLists,
  nameOf: (serviceId: string) => string | undefined,
): ScopeLists {
  const mayCall = (service: string): boolean => {
    const name = nameOf(service)
    return maker.services.includes(service) || (name !== undefined && maker.services.includes(name))
  }
  return {
    services: narrowed('services', asked.services, maker.services, mayCall),
    permissions: narrowed('permissions', asked.permissions, maker.permissions),
    models: narrowed('models', asked.models, maker.models),
  }
}

function narrowed(
  scope: keyof ScopeLists,
  asked: readonly string[],
  maker: readonly string[],
  covers: (item: string) => boolean = (item) => maker.includes(item),
): readonly string[] {
  if (maker.length === 0) return asked
  if (asked.length === 0) return maker
  const beyond = asked.find((item) => !covers(item))
  if (beyond !== undefined) throw scopeExceeded(scope, beyond)
  return asked
}

function scopeExceeded(scope: string, item: string): TollgateError {
  const message = `scopes.${scope}: the key that makes this call may not use "${item}" itself, so it can give it to no other.`
  return new TollgateError('KEY_SCOPE_EXCEEDED', message, { metadata: { scope, item } })
}

/** KEY_SCOPE_MISSING: the key is narrowed to less than the call needs. */
export function scopeMissing(keyId: string | undefined, scope: keyof ScopeLists, item: string): TollgateError {
  const message = `The key is narrowed to some ${scope}, and "${item}" is not among them: use another key, or one without that scope.`
  return new TollgateError('KEY_SCOPE_MISSING', message, { metadata: { keyId: keyId ?? '', scope, item } })
}
