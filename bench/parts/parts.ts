import type { Part } from '../part.ts'
import { flat } from './flat.ts'
import { floor } from './floor.ts'
import { latency } from './latency.ts'
import { memory } from './memory.ts'
import { soak } from './soak.ts'
import { stores } from './stores.ts'
import { crowd, streams } from './streams.ts'
import { tax } from './tax.ts'
import { tracing } from './tracing.ts'
import { payloads, unary } from './unary.ts'

/** All parts, in the order in which they run. */
export const parts: readonly Part[] = [
  unary,
  payloads,
  latency,
  streams,
  crowd,
  tax,
  stores,
  tracing,
  memory,
  floor,
  flat,
  soak,
]
