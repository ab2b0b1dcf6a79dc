import { appendFile, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { DomainEvent } from './domain-event.ts'
import { createFileSink } from './file-sink.ts'

let folder: string
const forever = new AbortController().signal

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tollgate-file-sink-'))
})
afterEach(() => rm(folder, { recursive: true }))

function event(id: string): DomainEvent {
  return {
    specversion: '1.0',
    id,
    source: '/test',
    type: 'tollgate.service.updated',
    subject: 'service/a',
    time: '',
    partitionkey: 'service/a',
    sequence: '1',
    datacontenttype: 'application/json',
    data: { position: 1, actor: 'a', requestId: '', resource: 'two\nlines' },
  }
}

async function idsIn(path: string): Promise<string[]> {
  const lines = (await readFile(path, 'utf8')).split('\n')
  expect(lines.pop()).toBe('')
  return lines.flatMap((line) => {
    try {
      return [JSON.parse(line).id]
    } catch {
      return []
    }
  })
}

test('each event is a line, also after a line that was cut off, and after the file was moved away', async () => {
  const path = join(folder, 'events.jsonl')
  const sink = createFileSink(path)
  expect(await sink.deliver([event('a'), event('b')], forever)).toEqual(['delivered', 'delivered'])
  await appendFile(path, '{"id":"cut')
  await sink.deliver([event('c')], forever)
  expect(await idsIn(path)).toEqual(['a', 'b', 'c'])
  await rename(path, `${path}.1`)
  await sink.deliver([event('d')], forever)
  expect(await idsIn(path)).toEqual(['d'])
})

test('a file that cannot be written to has taken nothing', async () => {
  await expect(createFileSink(join(folder, 'no', 'such.jsonl')).deliver([event('a')], forever)).rejects.toThrow(
    'ENOENT',
  )
})
