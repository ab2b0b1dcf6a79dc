import { expect, it } from 'vitest'
import { workerArguments } from './worker-arguments.ts'

it('a worker has the arguments of its primary, and less room for new objects', () => {
  expect(workerArguments(['--max-semi-space-size=32', '--enable-source-maps'])).toEqual([
    '--enable-source-maps',
    '--max-semi-space-size=8',
  ])
})
