import type { Call } from '../call.ts'

/** Who made a change, and from where. */
export interface Actor {
  /** Subject of the caller, such as "key:<key id>", or "system:<part>" for the process itself. */
  readonly subject: string
  /** Empty for the process itself. */
  readonly requestId: string
  readonly address: string
  readonly userAgent: string
}

/** The caller of a call. */
export function actorOf({ principal, id, peerAddress, userAgent }: Call): Actor {
  const subject = principal.kind === 'anonymous' ? 'anonymous' : principal.subject
  return { subject, requestId: id, address: peerAddress, userAgent }
}

/** A part of the process itself, such as "seed". */
export function systemActor(part: string): Actor {
  return { subject: `system:${part}`, requestId: '', address: '', userAgent: '' }
}
