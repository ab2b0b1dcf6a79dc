import type { Part } from '../part.ts'
import { crowd, streams } from './streams.ts'
import { payloads, unary } from './unary.ts'

/** All parts, in the order in which they run. */
export const parts: readonly Part[] = [unary, payloads, streams, crowd]
