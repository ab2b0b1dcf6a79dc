import type { CommandRow } from './command-row.ts'
import { identityRows } from './rows/identity.ts'
import { policyRows } from './rows/policies.ts'
import { serviceRows } from './rows/services.ts'
import { usageRows } from './rows/usage.ts'

/** Every command that is one call. Groups and verbs stand in the order in which the help shows them. */
export const commandRows: readonly CommandRow[] = [...identityRows, ...serviceRows, ...policyRows, ...usageRows]
