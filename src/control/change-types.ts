/** Everything that can become of a resource of the control plane; docs/events.md says what each means. */
export const changeTypes = [
  'organization.created',
  'organization.updated',
  'project.created',
  'project.updated',
  'consumer.created',
  'consumer.updated',
  'user.created',
  'user.updated',
  'key.created',
  'key.updated',
  'key.rotated',
  'key.revoked',
  'key.reissued',
  'service.registered',
  'service.updated',
  'service.documented',
  'service.activated',
  'service.deprecated',
  'service.suspended',
  'service.resumed',
  'service.retired',
  'traffic_split.set',
  'traffic_split.removed',
  'price.created',
  'policy.created',
  'policy.version_created',
  'policy.activated',
  'policy.rolled_back',
  'policy.disabled',
  'limit.set',
  'limit.deleted',
  'usage_record.corrected',
] as const

export type ChangeType = (typeof changeTypes)[number]

/** Kinds of resources that the control plane holds. */
export type ResourceKind = ChangeType extends `${infer Kind}.${string}` ? Kind : never

/** What can become of a resource of a kind. */
export type ChangeOf<Kind extends ResourceKind> = Extract<ChangeType, `${Kind}.${string}`>
