import type { Authenticator } from '../identity/authenticator.ts'
import type { Charge, CredentialGuard } from '../identity/credential-guard.ts'
import type { Caller } from '../identity/principal.ts'
import type { Middleware } from './middleware.ts'
import type { ServerCall } from './server-call.ts'

export interface AuthenticateOptions {
  readonly authenticate: Authenticator
  /** False gives every authenticated caller every permission; for development. */
  readonly rbac: boolean
  /** Default: wrong credentials are looked at without end. */
  readonly credentialGuard?: Pick<CredentialGuard, 'check' | 'settled'>
  /** Told of each call with a key, and from which address it comes; must not throw or wait. Default: nobody is told. */
  readonly onKeyUse?: (keyId: string, address: string) => void
}

/**
 * Sets `call.principal`. Public RPCs are not asked for a credential, and one that is sent is not looked at. Without `rbac`
 * every caller has the role of an administrator beside its own identity.
 */
export function authenticateCalls(options: AuthenticateOptions): Middleware {
  const { authenticate, rbac, credentialGuard: guard, onKeyUse } = options
  return {
    name: 'authenticate',
    why: 'before the body is read: a caller that is not known gets no memory and no decoding',
    phase: 'headers',
    enter(call) {
      if (call.rpc.access === 'public') return undefined
      const credential = credentialOf(call)
      const charge = guard?.check(credential, call.peerAddress) ?? 'none'
      const caller = authenticate(credential, call.clientCertificate)
      if (caller instanceof Promise) return admitOnce(caller, call, charge, credential)
      // Without a wait only those are known that were found good before, and they are charged nothing.
      return admit(call, caller)
    },
  }

  async function admitOnce(
    known: Promise<Caller>,
    call: ServerCall,
    charge: Charge,
    credential: string | undefined,
  ): Promise<void> {
    try {
      const caller = await known
      if (charge !== 'none') guard?.settled(charge, credential, call.peerAddress)
      admit(call, caller)
    } catch (error) {
      guard?.settled(charge, credential, call.peerAddress, error)
      throw error
    }
  }

  function admit(call: ServerCall, caller: Caller): undefined {
    if (caller.keyId !== undefined) onKeyUse?.(caller.keyId, call.peerAddress)
    call.principal = rbac ? caller : { ...caller, roles: ['admin'] }
  }
}

/** `authorization: Bearer <credential>`, or `x-api-key: <credential>`. */
function credentialOf(call: ServerCall): string | undefined {
  const bearer = /^bearer +(\S+) *$/i.exec(call.header('authorization') ?? '')?.[1]
  return bearer ?? call.header('x-api-key')
}
