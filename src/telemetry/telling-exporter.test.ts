import { expect, test } from 'vitest'
import { createLogger } from './log.ts'
import { tellingExporter } from './telling-exporter.ts'

test('spans that cannot be exported are told once, and once more when they can again', () => {
  const told: string[] = []
  const log = createLogger({
    level: 'info',
    destination: {
      write: (line: string) => {
        const { message, reason } = JSON.parse(line)
        told.push([message, reason].filter(Boolean).join(': '))
      },
    },
  })
  const down = { code: 1, error: new Error('connect ECONNREFUSED') }
  const results = [{ code: 0 }, down, down, { code: 0 }, { code: 0 }, down]
  const nothing = async (): Promise<void> => {}
  let exports = 0
  const inner = { forceFlush: nothing, shutdown: nothing }
  const exporter = tellingExporter({ ...inner, export: (_, done) => done(results[exports++] ?? { code: 0 }) }, log)
  const heard: number[] = []
  for (const _ of results) exporter.export([], ({ code }) => heard.push(code))
  expect(heard).toEqual([0, 1, 1, 0, 0, 1])
  expect(told).toEqual([
    'traces cannot be exported: spans are dropped: connect ECONNREFUSED',
    'traces are exported again',
    'traces cannot be exported: spans are dropped: connect ECONNREFUSED',
  ])
})
