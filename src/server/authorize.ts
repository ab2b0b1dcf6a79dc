import { type DescField, type DescMethod, getOption, hasOption, type Message } from '@bufbuild/protobuf'
import { access } from '../../gen/marketplace/v1/options_pb.ts'
import { TollgateError } from '../errors.ts'
import { allowsPermission, scopeMissing } from '../identity/key-scopes.ts'
import { type Principal, reaches, reachOf } from '../identity/principal.ts'
import type { Middleware } from './middleware.ts'
import type { Rpc } from './server-call.ts'

/**
 * Lets a call pass when its caller holds the permission that the RPC's contract names. An RPC whose contract names none
 * is refused to everyone: forgetting the option cannot open anything.
 */
export function authorizeCalls(): Middleware {
  return {
    name: 'authorize',
    why: 'as soon as the caller is known, still before the body is read',
    phase: 'headers',
    enter({ rpc, principal }) {
      if (rpc.access === 'public') return
      if (rpc.access === 'undeclared') {
        throw new TollgateError('PERMISSION_MISSING', `${rpc.name} declares no permission, so nobody may call it`, {
          metadata: { rpc: rpc.name },
        })
      }
      const { permission } = rpc.access
      if (reachOf(principal, permission) !== undefined) return
      if (principal.kind !== 'anonymous' && !allowsPermission(principal.scopes, permission)) {
        throw scopeMissing(principal.keyId, 'permissions', permission)
      }
      throw new TollgateError('PERMISSION_MISSING', `${rpc.name} needs the permission ${permission}`, {
        metadata: { rpc: rpc.name, permission },
      })
    },
  }
}

/** Id of a consumer's organization; undefined when there is no such consumer. */
export type OrganizationOf = (consumerId: string) => string | undefined

/** Refuses calls that name a consumer or an organization that the caller's permission does not reach. */
export function confineCalls(organizationOf: OrganizationOf): Middleware {
  return {
    name: 'confine',
    why: 'needs the message; before validation, so that a stranger learns nothing from it',
    phase: 'message',
    enter({ rpc, principal, request }) {
      if (request === undefined || typeof rpc.access === 'string') return
      const { permission } = rpc.access
      const consumerId = textAt(request, rpc.consumerPath)
      if (consumerId !== '') {
        const reached = (): boolean =>
          reaches(principal, permission, { consumerId, organizationId: organizationOf(consumerId) })
        if (!isOwn(principal, consumerId) && !reached()) throw unreached(rpc.consumerPath, 'consumer')
      }
      const organizationId = textAt(request, rpc.organizationPath)
      if (organizationId !== '' && !reaches(principal, permission, { organizationId })) {
        throw unreached(rpc.organizationPath, 'organization')
      }
    },
  }
}

/** Spares the path of calls what only others need. */
function isOwn(principal: Principal, consumerId: string): boolean {
  return principal.kind !== 'anonymous' && principal.consumerId === consumerId
}

function unreached(path: readonly DescField[], what: 'consumer' | 'organization'): TollgateError {
  const field = path.map((step) => step.name).join('.')
  const reason = what === 'consumer' ? 'CONSUMER_MISMATCH' : 'ORGANIZATION_MISMATCH'
  const article = what === 'consumer' ? 'a consumer' : 'an organization'
  return new TollgateError(reason, `${field} names ${article} that the credential does not speak for`, {
    metadata: { field },
  })
}

/** Who may call, as the method's options declare it. */
export function declaredAccess(method: DescMethod): Rpc['access'] {
  if (!hasOption(method, access)) return 'undeclared'
  const declared = getOption(method, access)
  if (declared.public) return 'public'
  return declared.permission === '' ? 'undeclared' : { permission: declared.permission }
}

/** Resolves `consumer_field` and `organization_field` of the method's options; throws at start when one names no field. */
export function declaredPaths(method: DescMethod): Pick<Rpc, 'consumerPath' | 'organizationPath'> {
  const { consumerField, organizationField } = getOption(method, access)
  return {
    consumerPath: fieldsAt(method, consumerField, 'consumer_field'),
    organizationPath: fieldsAt(method, organizationField, 'organization_field'),
  }
}

function fieldsAt(method: DescMethod, path: string, option: string): readonly DescField[] {
  if (path === '') return []
  const steps: DescField[] = []
  let message: DescMethod['input'] | undefined = method.input
  for (const name of path.split('.')) {
    const field: DescField | undefined = message?.fields.find((candidate) => candidate.name === name)
    if (field === undefined) throw new Error(`${option} "${path}" of ${method} does not exist in ${method.input}`)
    steps.push(field)
    message = field.fieldKind === 'message' ? field.message : undefined
  }
  return steps
}

/** The text of a field; empty for an empty path. */
export function textAt(message: Message, path: readonly DescField[]): string {
  if (path.length === 0) return ''
  let value: unknown = message
  for (const field of path) {
    value = typeof value === 'object' && value !== null ? Reflect.get(value, field.localName) : undefined
  }
  return typeof value === 'string' ? value : ''
}
