import { expect, test } from 'vitest'
import { countsOf, mergedGauges, mergeFigures } from './merge-figures.ts'
import { createMetrics } from './metrics.ts'

async function linesOf(all: Parameters<typeof mergeFigures>[0]): Promise<string[]> {
  return (await mergeFigures(all).metrics()).split('\n').filter((line) => line !== '' && !line.startsWith('#'))
}

function oneOf(calls: number, backlog: number, isSick: boolean) {
  const metrics = createMetrics({ processMetrics: false })
  for (let i = 0; i < calls; i++) {
    metrics.httpRequests.of('POST', '/a', '200').inc()
    metrics.httpRequestDuration.of('POST', '/a', '200').observe(0.02)
    metrics.httpRequestsInFlight.inc()
  }
  metrics.setSources({
    usageBacklog: () => backlog,
    endpointHealth: () => [{ serviceId: 's', endpointId: 'e', health: { isSick } }],
    breakers: () => [{ serviceId: 's', endpointId: 'e', state: isSick ? 'open' : 'closed' }],
    drain: () => ({ lastWriteAtMs: undefined, written: calls, duplicates: 0 }),
  })
  return metrics.figures()
}

test('counts are added up, what all see is told once, and of a state the worst', async () => {
  const lines = await linesOf([await oneOf(2, 7, false), await oneOf(3, 8, true)])
  const labels = 'method="POST",path="/a",status="200"'
  expect(lines).toEqual(
    expect.arrayContaining([
      `http_requests_total{${labels}} 5`,
      `http_request_duration_seconds_count{${labels}} 5`,
      `http_request_duration_seconds_bucket{le="0.025",${labels}} 5`,
      'tollgate_drain_written_total 5',
      'http_requests_in_flight 5',
      'tollgate_usage_backlog 8',
      'tollgate_endpoint_healthy{service_id="s",endpoint_id="e"} 0',
      'tollgate_breaker_state{service_id="s",endpoint_id="e"} 2',
    ]),
  )
})

test('one process merged is what it says itself', async () => {
  const metrics = createMetrics({ processMetrics: false })
  metrics.httpRequestDuration.of('POST', '/a', '200').observe(0.02)
  metrics.setSources({ usageBacklog: () => 3 })
  const own = (await metrics.render()).split('\n').filter((line) => line !== '')
  const merged = (await mergeFigures([await metrics.figures()]).metrics()).split('\n').filter((line) => line !== '')
  expect(merged.sort()).toEqual(own.sort())
})

test('what a process that is gone leaves are its counts', async () => {
  const lines = await linesOf([countsOf(await oneOf(2, 7, true))])
  expect(lines).toContain('http_requests_total{method="POST",path="/a",status="200"} 2')
  expect(lines).toContain('http_request_duration_seconds_count{method="POST",path="/a",status="200"} 2')
  expect(lines.filter((line) => /in_flight|backlog|healthy/.test(line))).toEqual([])
})

test('for every gauge it is said how it is merged', async () => {
  const figures = await createMetrics().figures()
  // prom-client knows the type as text.
  const gauges = figures.filter(({ type }) => String(type) === 'gauge').map(({ name }) => name)
  expect(gauges.filter((name) => !mergedGauges.includes(name))).toEqual([])
  expect(mergedGauges.filter((name) => !gauges.includes(name))).toEqual([])
})
