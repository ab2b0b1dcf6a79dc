import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Bytes in the old generation that `change` leaves there, all of it garbage. */
export function promotedBy(change: (turn: number) => void): number {
  setFlagsFromString('--expose-gc')
  const collect: (options?: { type: 'minor' }) => void = runInNewContext('gc')
  change(0)
  collect()
  const before = oldBytes()
  for (let turn = 1; turn <= 20; turn++) {
    change(turn)
    collect({ type: 'minor' })
  }
  return oldBytes() - before
}

function oldBytes(): number {
  const space = getHeapSpaceStatistics().find(({ space_name: name }) => name === 'old_space')
  if (space === undefined) throw new Error('no old space')
  return space.space_used_size
}
