import * as is from '../config-parsers.ts'
import { adminKeyMinLength } from '../identity/admin-key.ts'
import { looksLikeKey } from '../identity/key-format.ts'
import type { SettingsReader } from './settings-reader.ts'
import { optional, setting } from './variable.ts'

/** Who may do what; policies are in policy.ts. */
export const accessVariables = {
  adminKey: optional(is.secret(adminKeyMinLength), {
    name: 'TOLLGATE_ADMIN_KEY',
    group: 'Access',
    secret: true,
    description:
      'Credential of the bootstrap administrator. There is no default: without it no credential is an administrator.',
  }),
  credentialFailures: setting(is.zeroOr(1, 1_000_000), {
    name: 'CREDENTIAL_FAILURES_PER_MINUTE',
    group: 'Access',
    default: 100,
    description:
      'Wrong credentials that an address (of IPv6 a network of 64 bits) may send a minute and at once. Beyond it only credentials that this process found good before are served from there; others are refused with CREDENTIAL_FAILURES before they are looked at. 0: no limit.',
  }),
  rbac: setting(is.boolean, {
    name: 'ENABLE_RBAC',
    group: 'Access',
    default: true,
    description:
      'Whether permissions are enforced. `false` is for development, and refused where other machines can reach the listener.',
  }),
  rateLimiting: setting(is.boolean, {
    name: 'ENABLE_RATE_LIMITING',
    group: 'Access',
    default: true,
    description: 'Whether request rates and quotas refuse calls. Usage is recorded either way.',
  }),
  policyValidation: setting(is.boolean, {
    name: 'ENABLE_POLICY_VALIDATION',
    group: 'Access',
    default: true,
    description:
      'Whether grants and policies decide about calls. `false` lets every consumer call every service, whatever it sends.',
  }),
} as const

/** Which checks are on, and the credential that passes them all. */
export interface AccessSettings {
  readonly adminKey: string | undefined
  /** 0: no limit. */
  readonly credentialFailuresPerMinute: number
  readonly rbac: boolean
  readonly rateLimiting: boolean
  readonly policyValidation: boolean
}

/** Refuses an administrator key that authentication would take for an API key. */
export function readAccess(from: SettingsReader): AccessSettings {
  const adminKey = from.read(accessVariables.adminKey)
  if (adminKey !== undefined && looksLikeKey(adminKey))
    from.refuse(
      accessVariables.adminKey,
      'begins like an API key',
      `Set it to ${accessVariables.adminKey.parser.expects}`,
    )
  return {
    adminKey,
    credentialFailuresPerMinute: from.read(accessVariables.credentialFailures),
    rbac: from.read(accessVariables.rbac),
    rateLimiting: from.read(accessVariables.rateLimiting),
    policyValidation: from.read(accessVariables.policyValidation),
  }
}
