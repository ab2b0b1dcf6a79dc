import fc from 'fast-check'
import { expect, test } from 'vitest'
import { afterCheck, type EndpointHealth } from './endpoint-health.ts'

const thresholds = { healthyThreshold: 2, unhealthyThreshold: 3 }

/** The state after checks that were good (true) or bad, one each millisecond from 1 on. */
function after(results: readonly boolean[], asked = thresholds): EndpointHealth | undefined {
  let health: EndpointHealth | undefined
  for (const [index, isGood] of results.entries()) {
    health = afterCheck(health, isGood ? undefined : 'status 503', asked, index + 1)
  }
  return health
}

test('an endpoint is sick after enough bad checks in a row, and well after enough good ones', () => {
  expect(after([false, false])).toMatchObject({ isSick: false, failure: 'status 503' })
  expect(after([false, false, true, false, false])).toMatchObject({ isSick: false, sinceMs: 1 })
  expect(after([true, false, false, false])).toMatchObject({ isSick: true, sinceMs: 4, checkedAtMs: 4 })
  expect(after([false, false, false, true])).toMatchObject({ isSick: true, sinceMs: 3, failure: undefined })
  expect(after([false, false, false, true, false, true])).toMatchObject({ isSick: true })
  expect(after([false, false, false, true, true])).toMatchObject({ isSick: false, sinceMs: 5 })
})

test('whatever the checks say: it turns exactly when its threshold of contrary results in a row is reached', () => {
  const threshold = fc.integer({ min: 1, max: 4 })
  fc.assert(
    fc.property(
      fc.array(fc.boolean(), { maxLength: 30 }),
      threshold,
      threshold,
      (results, healthyThreshold, unhealthyThreshold) => {
        let isSick = false
        let run = 0
        for (const [index, isGood] of results.entries()) {
          run = isGood === isSick ? run + 1 : 0
          if (run === (isSick ? healthyThreshold : unhealthyThreshold)) {
            isSick = !isSick
            run = 0
          }
          expect(after(results.slice(0, index + 1), { healthyThreshold, unhealthyThreshold })?.isSick).toBe(isSick)
        }
      },
    ),
  )
})
