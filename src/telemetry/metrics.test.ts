import { Registry } from 'prom-client'
import { expect, test } from 'vitest'
import { createCallMetrics } from './call-metrics.ts'
import { counterFamily } from './metric-families.ts'
import { createMetrics } from './metrics.ts'

async function linesOf(metrics: { render(): Promise<string> }): Promise<string[]> {
  return (await metrics.render()).split('\n').filter((line) => line !== '' && !line.startsWith('#'))
}

const quiet = { processMetrics: false } as const

test('counts RPCs under the names of the reference, with the HTTP status of their outcome', async () => {
  const metrics = createMetrics(quiet)
  const { rpcs } = createCallMetrics(metrics)
  const rpc = { verb: 'POST', path: '/marketplace.v1.ConsumptionService/RouteRequest' }
  for (const error of [undefined, undefined, { reason: 'RATE_LIMITED' }]) {
    rpcs.start(undefined, rpc)
    rpcs.end(undefined, rpc, error === undefined ? { ms: 20, httpStatus: 200 } : { ms: 20, httpStatus: 429, error })
  }
  const lines = await linesOf(metrics)
  const labels = 'method="POST",path="/marketplace.v1.ConsumptionService/RouteRequest"'
  expect(lines).toContain(`http_requests_total{${labels},status="200"} 2`)
  expect(lines).toContain(`http_requests_total{${labels},status="429"} 1`)
  expect(lines).toContain(`http_requests_failed_total{${labels},status="429"} 1`)
  expect(lines).not.toContain(`http_requests_failed_total{${labels},status="200"} 2`)
  expect(lines).toContain(`http_request_duration_seconds_count{${labels},status="200"} 2`)
  expect(lines).toContain(`http_request_duration_seconds_bucket{le="0.025",${labels},status="200"} 2`)
  expect(lines).toContain('http_requests_in_flight 0')
})

test('counts what the gate refuses and records', async () => {
  const metrics = createMetrics(quiet)
  const { gate } = createCallMetrics(metrics)
  const tokens = { input: 3, output: 4 }
  gate.recorded({ serviceId: 's', status: 'succeeded', tokens, durationMs: 20, firstTokenMs: 7 }, 'basic')
  gate.recorded({ serviceId: 's', status: 'failed', tokens, durationMs: 20, firstTokenMs: 0 }, 'basic')
  const refuse = (reason: string) => gate.refused({ serviceId: 's', tier: 'basic', error: { reason } })
  refuse('RATE_LIMITED')
  refuse('QUOTA_EXCEEDED')
  refuse('POLICY_DENIED')
  expect(await linesOf(metrics)).toEqual(
    expect.arrayContaining([
      'consumption_requests_total{service_id="s",status="succeeded"} 1',
      'consumption_requests_total{service_id="s",status="failed"} 1',
      'marketplace_requests_total{service="s",status="success"} 1',
      'marketplace_requests_total{service="s",status="error"} 1',
      'marketplace_requests_total{service="s",status="refused"} 3',
      'marketplace_request_duration_seconds_count{service="s"} 2',
      'marketplace_first_token_duration_seconds_count{service="s"} 1',
      'consumption_requests_total{service_id="s",status="rate_limited"} 1',
      'tokens_consumed_total{service_id="s",tier="basic"} 14',
      'rate_limits_exceeded_total{service_id="s",tier="basic"} 1',
      'quota_exceeded_total{service_id="s",tier="basic"} 1',
      'consumption_requests_total{service_id="s",status="policy_denied"} 1',
    ]),
  )
})

test('a scrape counts nothing twice', async () => {
  const metrics = createMetrics(quiet)
  metrics.tokensConsumed.of('s', 'basic').inc(5)
  const first = await linesOf(metrics)
  expect(await linesOf(metrics)).toEqual(first)
  metrics.tokensConsumed.of('s', 'basic').inc(2)
  expect(await linesOf(metrics)).toContain('tokens_consumed_total{service_id="s",tier="basic"} 7')
})

test('gauges ask their sources at each scrape', async () => {
  const metrics = createMetrics({ ...quiet, now: () => 10_000 })
  let backlog = 3
  metrics.setSources({
    databaseConnections: async () => ({ active: 2, idle: 5 }),
    redisConnections: () => 1,
    breakers: () => [{ serviceId: 's', endpointId: 'e', state: 'half_open' }],
    usageBacklog: async () => backlog,
    drain: () => ({ lastWriteAtMs: 8_000, written: 40, duplicates: 1 }),
    limitsAvailable: async () => false,
    events: () => ({ buffered: 7, failing: 'away' }),
  })
  await metrics.render()
  backlog = 4
  expect(await linesOf(metrics)).toEqual(
    expect.arrayContaining([
      'db_connections_active 2',
      'db_connections_idle 5',
      'redis_connections_active 1',
      'tollgate_breaker_state{service_id="s",endpoint_id="e"} 1',
      'tollgate_usage_backlog 4',
      'tollgate_drain_last_write_age_seconds 2',
      'tollgate_drain_written_total 40',
      'tollgate_drain_duplicates_total 1',
      'tollgate_limits_available 0',
      'analytics_buffer_size 7',
      'tollgate_events_available 0',
    ]),
  )
})

test('a source that fails or is absent shows no sample instead of a wrong one', async () => {
  const metrics = createMetrics(quiet)
  metrics.setSources({
    usageBacklog: () => Promise.reject(new Error('away')),
    events: () => undefined,
    redisConnections: () => {
      throw new Error('away')
    },
  })
  const names = (await linesOf(metrics)).map((line) => line.split(/[ {]/)[0])
  expect(names).not.toContain('tollgate_usage_backlog')
  expect(names).not.toContain('redis_connections_active')
  expect(names).not.toContain('db_connections_active')
  expect(names).not.toContain('analytics_buffer_size')
  expect(names).toContain('http_requests_in_flight')
})

test('label sets beyond the ceiling count as other', async () => {
  const registry = new Registry()
  const family = counterFamily({
    registry,
    name: 'calls_total',
    help: 'calls',
    labels: ['service_id'],
    maxLabelSets: 2,
  })
  for (const id of ['a', 'b', 'c', 'd', 'a']) family.of(id).inc()
  expect(await linesOf({ render: () => registry.metrics() })).toEqual([
    'calls_total{service_id="a"} 2',
    'calls_total{service_id="b"} 1',
    'calls_total{service_id="other"} 2',
  ])
})

test('two gateways in one process share no count, and process metrics are there', async () => {
  const one = createMetrics()
  const two = createMetrics()
  one.httpRequests.of('POST', '/a', '200').inc()
  expect(await linesOf(two)).not.toContain('http_requests_total{method="POST",path="/a",status="200"} 1')
  expect(await two.render()).toContain('nodejs_eventloop_lag_p99_seconds')
})
