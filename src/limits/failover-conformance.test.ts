import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { limitsConformance } from './conformance.ts'
import { createFailoverLimits } from './failover-limits.ts'
import { createLocalLimits } from './local-limits.ts'

const log = pino({ level: 'silent' })

limitsConformance('failover, while the shared store is here', async (seed) => {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-away-'))
  const shared = await createLocalLimits({ folder: join(folder, 'shared'), seed, log })
  const limits = await createFailoverLimits({
    primary: shared,
    openLocal: (ownSeed) => createLocalLimits({ folder: join(folder, 'own'), seed: ownSeed, log }),
    folder,
    mode: 'local',
    replicas: () => 1,
    seed,
    log,
  })
  return {
    limits,
    other: limits,
    async close() {
      await limits.close()
      await shared.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
})
