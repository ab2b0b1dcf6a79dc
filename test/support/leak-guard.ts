import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, expect } from 'vitest'

/** What keeps a process alive and must be given back: sockets, servers, pipes, child processes, watchers, timers. */
const guarded = /^(TCP|TLS|Pipe|UDP|Process|FSEvent|StatWatcher|Worker|MessagePort|Timeout$)/

// Opened on first use, and no test's leak.
void [process.stdin, process.stdout, process.stderr]

const before = count()

// Hooks run last in, first out: this one was registered before any of the test file's own.
afterAll(async () => {
  const deadline = Date.now() + 5000
  let left = leaks()
  while (left.length > 0 && Date.now() < deadline) {
    await sleep(20, undefined, { ref: false })
    left = leaks()
  }
  expect(left, 'left behind by this test file').toEqual([])
}, 10_000)

function leaks(): string[] {
  const now = count()
  return [...now].flatMap(([type, n]) => {
    const more = n - (before.get(type) ?? 0)
    return more > 0 ? [`${more} ${type}`] : []
  })
}

function count(): Map<string, number> {
  const counts = new Map<string, number>()
  for (const type of process.getActiveResourcesInfo()) {
    if (guarded.test(type)) counts.set(type, (counts.get(type) ?? 0) + 1)
  }
  return counts
}
