import type { PolicySpec } from '../../gen/marketplace/v1/policy_pb.ts'

/** What an active version does: decide, or only tell. */
export type ActiveMode = 'enforce' | 'audit_only'

/** A policy in force, as the snapshot holds it. */
export interface PolicyRecord {
  /** UUID, lower case. */
  readonly id: string
  readonly name: string
  readonly version: number
  readonly mode: ActiveMode
  readonly spec: PolicySpec
}
