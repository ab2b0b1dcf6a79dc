import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { TollgateError } from '../errors.ts'
import { type Batch, GroupCommit } from './group-commit.ts'

/** Keeps what it was asked to run, and answers each call with its first argument. */
function echo(): { commit: GroupCommit; batches: Batch[] } {
  const batches: Batch[] = []
  const commit = new GroupCommit(async (batch) => {
    batches.push(batch)
    return batch.calls.map(({ args }) => ['answered', args[0]])
  })
  return { commit, batches }
}

describe('calls that come in one turn of the event loop', () => {
  it('share one run, and each has its own answer', async () => {
    const { commit, batches } = echo()
    const calls = ['a', 'b', 'c'].map((name) => commit.add('g', [name]))
    expect(await Promise.all(calls)).toEqual(['a', 'b', 'c'].map((name) => ['answered', name]))
    expect(batches).toHaveLength(1)
    await commit.add('g', ['d'])
    expect(batches).toHaveLength(2)
  })

  it('send what they share once', async () => {
    const { commit, batches } = echo()
    await Promise.all([commit.add('g', ['a'], 'x'), commit.add('g', ['b'], 'y'), commit.add('g', ['c'], 'x')])
    await commit.add('g', ['d'])
    expect(batches.map(({ shared, calls }) => [shared, calls.map((call) => call.shared)])).toEqual([
      [
        ['x', 'y'],
        [1, 2, 1],
      ],
      [[], [0]],
    ])
  })

  it('are split where the generation changes, at 128 calls, and at 256 KiB', async () => {
    const { commit, batches } = echo()
    await Promise.all(['g', 'g', 'h'].map((generation) => commit.add(generation, ['a'])))
    expect(batches.map(({ generation, calls }) => [generation, calls.length])).toEqual([
      ['g', 2],
      ['h', 1],
    ])
    batches.length = 0
    await Promise.all(Array.from({ length: 300 }, (_, index) => commit.add('g', [String(index)])))
    expect(batches.map(({ calls }) => calls.length)).toEqual([128, 128, 44])
    batches.length = 0
    const large = 'x'.repeat(100 * 1_024)
    await Promise.all([large, large, large, Buffer.alloc(1_048_576), 'a'].map((arg) => commit.add('g', [arg])))
    expect(batches.map(({ calls }) => calls.length)).toEqual([2, 1, 1, 1])
  })

  it('do not wait for the run before theirs', async () => {
    const asked: (() => void)[] = []
    const commit = new GroupCommit(
      () =>
        new Promise((resolve) => {
          asked.push(() => resolve([['done']]))
        }),
    )
    const first = commit.add('g', ['a'])
    await turn()
    const second = commit.add('g', ['b'])
    await turn()
    expect(asked).toHaveLength(2)
    for (const answer of asked) answer()
    expect(await Promise.all([first, second])).toEqual([['done'], ['done']])
  })
})

describe('a run that', () => {
  it('fails, fails all of its calls with the same', async () => {
    const error = new TollgateError('LIMITS_UNAVAILABLE', 'away')
    const commit = new GroupCommit(() => Promise.reject(error))
    const calls = [commit.add('g', ['a']), commit.add('g', ['b'])]
    expect(await Promise.allSettled(calls)).toEqual(calls.map(() => ({ status: 'rejected', reason: error })))
  })

  it('could not do one call, fails that one only', async () => {
    const commit = new GroupCommit(async () => [['failed', 'WRONGTYPE'], ['done']])
    const [bad, good] = await Promise.allSettled([commit.add('g', ['a']), commit.add('g', ['b'])])
    expect(bad).toMatchObject({ status: 'rejected', reason: { reason: 'LIMITS_UNAVAILABLE', metadata: {} } })
    expect(good).toEqual({ status: 'fulfilled', value: ['done'] })
  })

  it('answers all of them at once, tells it to each', async () => {
    const commit = new GroupCommit(async () => ['generation'])
    expect(await Promise.all([commit.add('g', ['a']), commit.add('g', ['b'])])).toEqual([
      ['generation'],
      ['generation'],
    ])
  })
})
