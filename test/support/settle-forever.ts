import pino from 'pino'
import { usageEvent } from '../../src/limits/conformance-support.ts'
import { createLocalLimits } from '../../src/limits/local-limits.ts'

/** Settles in the folder that is its argument and prints the id of each event that is durable, until it is killed. */
const [, , folder = ''] = process.argv
const limits = await createLocalLimits({ folder, log: pino({ level: 'silent' }), seed: async () => 0 })
for (;;) {
  const events = Array.from({ length: 20 }, () => usageEvent())
  await Promise.all(
    events.map(async (event) => {
      await limits.settle({ id: event.requestId, organizationId: 'org', actual: [], event })
      process.stdout.write(`${event.id}\n`)
    }),
  )
}
