import { programConformance } from './conformance-programs.ts'
import { FakeLedger } from './conformance-support.ts'
import { LocalFolders } from './local-support.ts'

programConformance('local', async () => {
  const folders = new LocalFolders()
  const ledger = new FakeLedger()
  let nowMs = 0
  const start = (at: string) => folders.start(at, { seed: ledger.seed, clock: () => nowMs, reclaimIdleMs: 0 })
  let folder = await folders.make()
  let limits = await start(folder)
  return {
    get processes() {
      return [limits]
    },
    ledger,
    loses: 'process',
    async setClock(ms) {
      nowMs = ms
    },
    // Within a process no answer is lost.
    loseAnswer() {},
    async loseData() {
      folder = await folders.crash(folder)
      limits = await start(folder)
    },
    close: () => folders.clear(),
  }
})
