import { expect, test } from 'vitest'
import { createLines } from './lines.ts'

const full = () => new Error('full')

test('does work of one name in order, also after some that failed, and of others meanwhile', async () => {
  const line = createLines(10, full)
  const gate = Promise.withResolvers<void>()
  const done: string[] = []
  const first = line('a', async () => {
    await gate.promise
    throw new Error('failed')
  })
  const second = line('a', async () => done.push('a'))
  await line('b', async () => done.push('b'))
  expect(done).toEqual(['b'])
  gate.resolve()
  await expect(first).rejects.toThrow('failed')
  await second
  expect(done).toEqual(['b', 'a'])
})

test('refuses what makes a line longer than it may be, and takes more when it is shorter', async () => {
  const line = createLines(2, full)
  const gate = Promise.withResolvers<void>()
  const waiting = [line('a', () => gate.promise), line('a', async () => {})]
  await expect(line('a', async () => {})).rejects.toThrow('full')
  expect(await line('b', async () => 'b')).toBe('b')
  gate.resolve()
  await Promise.all(waiting)
  expect(await line('a', async () => 'a')).toBe('a')
})
