import { afterEach, expect, test, vi } from 'vitest'
import { endpointRecord, serviceRecord } from '../../test/support/registry-records.ts'
import type { HealthCheck } from '../registry/health-check.ts'
import { createHealthChecks, type HealthChecks } from './health-checks.ts'

const check: HealthCheck = {
  probe: { kind: 'http', path: '/' },
  intervalMs: 1_000,
  timeoutMs: 100,
  healthyThreshold: 1,
  unhealthyThreshold: 2,
}
const endpoint = endpointRecord({ id: 'e', url: 'http://a', healthCheck: check })
const service = serviceRecord({ id: 's', endpoints: [endpoint, endpointRecord({ id: 'unchecked' })] })

let checks: HealthChecks | undefined
afterEach(() => {
  checks?.close()
  vi.useRealTimers()
})

/** Checks of which each takes no time, on a clock of the test's. */
function started() {
  vi.useFakeTimers()
  const probed: string[] = []
  const changes: string[] = []
  const state: { failure: string | undefined } = { failure: undefined }
  checks = createHealthChecks({
    probe: async (url) => {
      probed.push(url)
      return state.failure
    },
    now: Date.now,
    random: () => 0.5,
    onChange: ({ endpointId, health }) => changes.push(`${endpointId} ${health.isSick ? 'sick' : 'well'}`),
  })
  return { checks, probed, changes, state }
}

test('asks again and again, and tells when an endpoint becomes sick or well', async () => {
  const { checks, probed, changes, state } = started()
  checks.follow([service])
  expect(checks.of('e')).toBeUndefined()
  await vi.advanceTimersByTimeAsync(2_600)
  expect(probed).toEqual(['http://a', 'http://a', 'http://a'])
  expect(changes).toEqual([])
  state.failure = 'status 503'
  await vi.advanceTimersByTimeAsync(2_000)
  expect(checks.of('e')).toMatchObject({ isSick: true, failure: 'status 503' })
  state.failure = undefined
  await vi.advanceTimersByTimeAsync(1_000)
  expect(changes).toEqual(['e sick', 'e well'])
  expect([...checks.all()].map(({ serviceId, endpointId }) => [serviceId, endpointId])).toEqual([['s', 'e']])
})

test('goes on undisturbed when other things change, keeps what is known when the check changes, forgets what left', async () => {
  const { checks, probed, state } = started()
  state.failure = 'status 500'
  checks.follow([service])
  await vi.advanceTimersByTimeAsync(2_600)
  checks.follow([{ ...service, description: 'another' }])
  await vi.advanceTimersByTimeAsync(1_000)
  expect(probed.length).toBe(4)
  const slower = { ...endpoint, healthCheck: { ...check, intervalMs: 60_000 } }
  checks.follow([{ ...service, endpoints: [slower] }])
  expect(checks.of('e')?.isSick).toBe(true)
  await vi.advanceTimersByTimeAsync(30_000)
  expect(probed.length).toBe(5)
  checks.follow([{ ...service, status: 'suspended' }])
  expect(checks.of('e')).toBeUndefined()
  await vi.advanceTimersByTimeAsync(120_000)
  expect(probed.length).toBe(5)
})
