import { type DescField, type DescMethod, getOption, hasOption, type Message } from '@bufbuild/protobuf'
import { access } from '../../gen/marketplace/v1/options_pb.ts'
import { TollgateError } from '../errors.ts'
import { actForAny, hasPermission } from '../identity/principal.ts'
import type { Middleware } from './middleware.ts'
import type { Rpc } from './server-call.ts'

/**
 * Lets a call pass when its caller holds the permission that the RPC's contract names. An RPC whose contract names none
 * is refused to everyone: forgetting the option cannot open anything. With `rbac` off every authenticated caller holds
 * every permission.
 */
export function authorizeCalls(rbac: boolean): Middleware {
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
      if (principal.kind !== 'anonymous' && (!rbac || hasPermission(principal, permission))) return
      throw new TollgateError('PERMISSION_MISSING', `${rpc.name} needs the permission ${permission}`, {
        metadata: { rpc: rpc.name, permission },
      })
    },
  }
}

/** Refuses calls that name another consumer than the caller's own, unless the caller may act for any. */
export function confineToConsumer(rbac: boolean): Middleware {
  return {
    name: 'consumer',
    why: 'needs the message; before validation, so that a stranger learns nothing from it',
    phase: 'message',
    enter({ rpc, principal, request }) {
      if (rpc.consumerPath.length === 0 || request === undefined) return
      const named = textAt(request, rpc.consumerPath)
      if (named === '' || (principal.kind === 'key' && principal.consumerId === named)) return
      if (principal.kind !== 'anonymous' && (!rbac || hasPermission(principal, actForAny))) return
      const field = rpc.consumerPath.map((step) => step.name).join('.')
      throw new TollgateError('CONSUMER_MISMATCH', `${field} names a consumer that the credential does not speak for`, {
        metadata: { field },
      })
    },
  }
}

/** Who may call, as the method's options declare it. */
export function declaredAccess(method: DescMethod): Rpc['access'] {
  if (!hasOption(method, access)) return 'undeclared'
  const declared = getOption(method, access)
  if (declared.public) return 'public'
  return declared.permission === '' ? 'undeclared' : { permission: declared.permission }
}

/** Resolves `consumer_field` of the method's options; throws at start when it names no string field. */
export function declaredConsumerPath(method: DescMethod): readonly DescField[] {
  const path = hasOption(method, access) ? getOption(method, access).consumerField : ''
  if (path === '') return []
  const steps: DescField[] = []
  let message: DescMethod['input'] | undefined = method.input
  for (const name of path.split('.')) {
    const field: DescField | undefined = message?.fields.find((candidate) => candidate.name === name)
    if (field === undefined) throw new Error(`consumer_field "${path}" of ${method} does not exist in ${method.input}`)
    steps.push(field)
    message = field.fieldKind === 'message' ? field.message : undefined
  }
  return steps
}

function textAt(message: Message, path: readonly DescField[]): string {
  let value: unknown = message
  for (const field of path) {
    value = typeof value === 'object' && value !== null ? Reflect.get(value, field.localName) : undefined
  }
  return typeof value === 'string' ? value : ''
}
