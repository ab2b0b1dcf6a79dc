import type { DescMethod, Message } from '@bufbuild/protobuf'
import { type Denial, deniedReason, deniedResource, idText, isDenial, type Named } from '../audit/denial.ts'
import type { TollgateError } from '../errors.ts'
import { type OrganizationOf, textAt } from './authorize.ts'
import type { Rpc, ServerCall } from './server-call.ts'

/** Keeps denials. */
export interface Denials {
  /** Resolves when the denial is kept, or after `timeoutMs`; never rejects. */
  record(denial: Denial, timeoutMs: number): Promise<void>
}

/**
 * Makes what is asked before the answer of a failed call leaves: it tells of a denial once, and returns what the answer
 * waits for, a second at most, or half of what is left of the caller's time. Undefined for what is no denial.
 */
export function tellDenials(
  denials: Denials,
  organizationOf: OrganizationOf,
): (call: ServerCall) => Promise<void> | undefined {
  return (call) => {
    const { error } = call
    if (call.denial !== undefined || error === undefined || !isDenial(error.reason)) return call.denial
    const leftMs = Math.max(0, (call.deadlineMs - Date.now()) / 2)
    call.denial = denials.record(denialOf(call, error, organizationOf), Math.min(longestMs, leftMs))
    return call.denial
  }
}

const longestMs = 1_000

function denialOf(call: ServerCall, error: TollgateError, organizationOf: OrganizationOf): Denial {
  const { rpc, request, principal, id, peerAddress, userAgent } = call
  return {
    action: rpc.name,
    ...actorOf(principal, error, organizationOf),
    reason: deniedReason(error),
    resource: deniedResource(error, request === undefined ? nothing : namedBy(rpc, request)),
    requestId: id,
    address: peerAddress,
    userAgent,
  }
}

/** Whoever is refused while it is being authenticated is known by what refuses it. */
function actorOf(
  principal: ServerCall['principal'],
  { metadata, subject }: TollgateError,
  organizationOf: OrganizationOf,
): Pick<Denial, 'actor' | 'organizationId'> {
  if (principal.kind !== 'anonymous') {
    return { actor: principal.subject, organizationId: principal.organizationId ?? '' }
  }
  const { keyId, consumerId } = metadata
  const organizationId = consumerId === undefined ? undefined : organizationOf(consumerId)
  const actor = subject ?? (keyId === undefined ? 'anonymous' : `key:${keyId}`)
  return { actor, organizationId: organizationId ?? '' }
}

const nothing: Named = { consumerId: '', organizationId: '', resource: '' }

function namedBy({ method, consumerPath, organizationPath }: Rpc, request: Message): Named {
  return {
    consumerId: textAt(request, consumerPath),
    organizationId: textAt(request, organizationPath),
    resource: method === undefined ? '' : askedFor(method, request),
  }
}

/** Resources are asked for by a field "id", of the kind that the RPC is named after, as in GetUser; or by "user_id". */
function askedFor({ name, input }: DescMethod, request: Message): string {
  for (const kind of kinds) {
    const noun = kind.replaceAll('_', '')
    const field = input.fields.find(
      (each) => each.name === `${kind}_id` || (each.name === 'id' && name.toLowerCase().endsWith(noun)),
    )
    const id = field === undefined ? '' : textAt(request, [field])
    if (id !== '') return `${kind}/${idText(id)}`
  }
  return ''
}

/** What belongs to others stands before its owners. */
const kinds = ['service', 'policy', 'key', 'user', 'project', 'consumer', 'organization'] as const
