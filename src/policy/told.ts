import type { ConsumerRecord, ServiceRecord } from '../registry/records.ts'
import type { Decision } from './decision.ts'
import type { CallFacts } from './facts.ts'

/** A decision about a call, as the gate tells it. */
export interface PolicyTold {
  readonly requestId: string
  /** Empty for a caller without a key. */
  readonly keyId: string
  readonly decision: Decision
  readonly consumer: ConsumerRecord
  readonly service: ServiceRecord
  /** What policies may know of the call; undefined for a request that cannot be read. Costs a reading, once. */
  facts(): CallFacts | undefined
  readonly seconds: number
}
