/** Child process of the benchmark: a practice backend without a log. Tells its URL, answers 'stats' with its counters. */
import { startPracticeBackend } from '../src/practice/backend.ts'

const backend = await startPracticeBackend()
process.on('disconnect', () => process.exit())
process.on('message', () => process.send?.(backend.stats()))
process.send?.({ url: backend.url })
