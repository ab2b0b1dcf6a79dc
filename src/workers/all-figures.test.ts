import pino from 'pino'
import { expect, test } from 'vitest'
import { createMetrics } from '../telemetry/metrics.ts'
import { AllFigures, type Asked } from './all-figures.ts'

interface Worker extends Asked {
  count(calls: number): void
  falterFor(figures: Asked['figures'] | undefined): void
}

function worker(id: number): Worker {
  const metrics = createMetrics({ processMetrics: false })
  let instead: Asked['figures'] | undefined
  return {
    id,
    slot: id,
    figures: () => (instead ?? metrics.figures)(),
    count: (calls) => metrics.httpRequests.of('POST', '/a', '200').inc(calls),
    falterFor: (figures) => {
      instead = figures
    },
  }
}

function all(living: Worker[]) {
  const own = createMetrics({ processMetrics: false })
  let silent = 0
  own.setSources({ workers: () => ({ expected: 2, serving: living.length, silent, replaced: 0, restarted: 0 }) })
  const figures = new AllFigures({
    asked: () => living,
    own: (count) => {
      silent = count
      return own.figures()
    },
    log: pino({ level: 'silent' }),
    timeoutMs: 50,
  })
  const shown = async (): Promise<{ calls: number; silent: number }> => {
    const page = await figures.page()
    const seen = (pattern: RegExp): number => Number(pattern.exec(page)?.[1] ?? 0)
    return {
      calls: seen(/^http_requests_total\{.*\} (\d+)$/m),
      silent: seen(/^tollgate_workers_silent (\d+)$/m),
    }
  }
  return { figures, shown }
}

test('the counts of a worker that is gone stay, as it last told them', async () => {
  const [one, other] = [worker(1), worker(2)]
  const living = [one, other]
  const { figures, shown } = all(living)
  one.count(5)
  other.count(7)
  expect(await shown()).toEqual({ calls: 12, silent: 0 })
  // Killed: nobody saw what it counted since.
  other.count(100)
  living.pop()
  figures.ended(2)
  expect(await shown()).toEqual({ calls: 12, silent: 0 })
  // Left in order: its last word is the whole.
  one.count(1)
  figures.farewell(1, await one.figures())
  living.pop()
  figures.ended(1)
  expect(await shown()).toEqual({ calls: 13, silent: 0 })
})

test('a worker that does not answer stands with its last counts, and is told', async () => {
  const [one, other] = [worker(1), worker(2)]
  const { shown } = all([one, other])
  one.count(5)
  other.count(7)
  await shown()
  one.count(1)
  other.falterFor(() => new Promise(() => {}))
  expect(await shown()).toEqual({ calls: 13, silent: 1 })
  other.falterFor(undefined)
  expect(await shown()).toEqual({ calls: 13, silent: 0 })
})

test('a worker that ends while it is asked is counted once', async () => {
  const one = worker(1)
  const living = [one]
  const { figures, shown } = all(living)
  one.count(5)
  const own = await one.figures()
  one.falterFor(async () => {
    figures.farewell(1, own)
    figures.ended(1)
    throw new Error('gone')
  })
  expect(await shown()).toEqual({ calls: 5, silent: 1 })
})
