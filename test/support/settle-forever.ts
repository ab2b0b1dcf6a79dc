import pino from 'pino'
import { admission, settlement } from '../../src/limits/conformance-support.ts'
import { createLocalLimits } from '../../src/limits/local-limits.ts'

/**
 * Answers calls in the folder that is its first argument, and prints the ids of event and call of each that is durable,
 * until it is killed. A call's claim has the call's id for its key, and keeps that as its answer. With the argument
 * "draining" it acknowledges its usage log meanwhile, so that segments are deleted all the time.
 */
const [, , folder = '', mode] = process.argv
const log = pino({ level: 'silent' })
const limits = await createLocalLimits({ folder, log, seed: async () => 0, segmentBytes: 20_000 })
for (;;) {
  const calls = Array.from({ length: 20 }, () => {
    const call = admission([])
    return { ...call, claim: { key: call.id, fingerprint: 'a' } }
  })
  const answering = calls.map(async (call) => {
    await limits.admit(call)
    await limits.settle(settlement(call, [], Buffer.from(call.id)))
    process.stdout.write(`${call.ifAbandoned.id} ${call.id}\n`)
  })
  const draining = mode === 'draining' ? [acknowledgeSome()] : []
  await Promise.all([...answering, ...draining])
}

async function acknowledgeSome(): Promise<void> {
  await (await limits.usageLog.read(100, 1, new AbortController().signal)).acknowledge()
}
