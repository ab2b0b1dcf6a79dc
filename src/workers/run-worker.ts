import { startApp } from '../app.ts'
import type { Config } from '../config.ts'
import { openPrimaryLine } from './worker-link.ts'

/**
 * One worker, from its start to its end: takes the seat that the primary gives it, serves, and ends when it is replaced,
 * when all leave, when it alone gets a SIGTERM, or when the primary is gone. Resolves when the process may exit.
 */
export async function runWorker(config: Config): Promise<void> {
  const line = openPrimaryLine()
  const asked = Promise.withResolvers<void>()
  // A terminal sends these to every process of its own; the primary says what follows from them.
  for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => {})
  process.on('SIGTERM', () => asked.resolve())
  const link = await line.begin()
  const app = await start()
  await line.tell({ kind: 'serving', address: app.address })
  const alone = asked.promise.then(() => line.tell({ kind: 'leaving' }))
  await Promise.race([line.retired.then(() => app.retire()), line.dismissed, alone])
  await app.close()
  await line.farewell()

  async function start(): ReturnType<typeof startApp> {
    try {
      return await startApp({ ...config, server: { ...config.server, port: link.port } }, { worker: link })
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      await line.tell({ kind: 'failed', message })
      process.exit(1)
    }
  }
}
