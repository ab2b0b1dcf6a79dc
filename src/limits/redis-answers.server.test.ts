import { afterEach, expect, it } from 'vitest'
import { claim, settlement } from './conformance-support.ts'
import { admitted, RedisScene } from './redis-scene.ts'

let scene: RedisScene

afterEach(() => scene.close(), 60_000)

it('Redis keeps an answer for 24 hours, and no byte beside it but its fingerprint', async () => {
  scene = await RedisScene.start()
  const [limits, redis] = [await scene.process('one'), await scene.connect()]
  const held = claim()
  const call = await admitted(limits, [], { claim: held })
  await limits.settle(settlement(call, [], new Uint8Array(10_000)))
  const key = scene.keys.claim(held.key)
  const day = 86_400_000
  const left = Number(await redis.call('pttl', key))
  expect(left).toBeLessThanOrEqual(day)
  expect(left).toBeGreaterThan(day - 600_000)
  expect(await redis.call('strlen', key)).toBe('a'.length + held.fingerprint.length + '\n'.length + 10_000)
}, 60_000)

it('Redis keeps nothing of a call that was settled without an answer', async () => {
  scene = await RedisScene.start()
  const [limits, redis] = [await scene.process('one'), await scene.connect()]
  const held = claim()
  const call = await admitted(limits, [], { claim: held })
  expect(await redis.call('exists', scene.keys.claim(held.key))).toBe(1)
  await limits.settle(settlement(call, []))
  expect(await redis.call('exists', scene.keys.claim(held.key))).toBe(0)
}, 60_000)
