import { accessVariables } from './config/access.ts'
import { backendVariables } from './config/backends.ts'
import { eventVariables } from './config/events.ts'
import { observabilityVariables } from './config/observability.ts'
import { policyVariables } from './config/policy.ts'
import { registryVariables } from './config/registry.ts'
import { serverVariables } from './config/server.ts'
import { storageVariables } from './config/storage.ts'
import { tokenVariables } from './config/tokens.ts'

/**
 * Every environment variable that Tollgate reads, as data: a file of `config/` holds the rows of a topic, and what is
 * made of them. docs/configuration.md is printed from it, in this order.
 */
export const variables = {
  ...serverVariables,
  ...storageVariables,
  ...backendVariables,
  ...accessVariables,
  ...policyVariables,
  ...tokenVariables,
  ...eventVariables,
  ...registryVariables,
  ...observabilityVariables,
} as const
