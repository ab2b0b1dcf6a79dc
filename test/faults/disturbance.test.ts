import { expect, test } from 'vitest'
import { createDisturbance } from './disturbance.ts'
import type { Fault, TargetName } from './schedule.ts'

const at = (atCall: number, target: TargetName): Fault => ({ atCall, target, action: 'kill', forMs: 0 })

/** A disturbance whose faults are healed by hand. */
function disturb(schedule: readonly Fault[], signal = new AbortController().signal) {
  const begun: TargetName[] = []
  const heals = new Map<TargetName, PromiseWithResolvers<void>>()
  const play = (fault: Fault): Promise<void> => {
    begun.push(fault.target)
    const healed = Promise.withResolvers<void>()
    heals.set(fault.target, healed)
    return healed.promise
  }
  const disturbance = createDisturbance({ schedule, play, leadCalls: 10, onChange: () => {}, signal })
  return { disturbance, begun, heals }
}

test('a fault begins with its call, and calls do not run far ahead of it', async () => {
  const { disturbance, begun } = disturb([at(50, 'redis')])
  await disturbance.reached(59)
  const later = disturbance.reached(60)
  disturbance.progress(49)
  expect(begun).toEqual([])
  expect(await Promise.race([later.then(() => 'gone'), Promise.resolve('held')])).toBe('held')
  disturbance.progress(50)
  expect(begun).toEqual(['redis'])
  await later
})

test('no more than two at once, none twice at the same target, in the order of the schedule', async () => {
  const { disturbance, begun, heals } = disturb([at(1, 'redis'), at(1, 'redis'), at(1, 'postgres'), at(1, 'backend')])
  disturbance.progress(1)
  expect(begun).toEqual(['redis'])
  heals.get('redis')?.resolve()
  await expect.poll(() => begun).toEqual(['redis', 'redis', 'postgres'])
  expect([...disturbance.active()]).toEqual(['redis', 'postgres'])
  heals.get('postgres')?.resolve()
  await expect.poll(() => begun.at(-1)).toBe('backend')
  heals.get('redis')?.resolve()
  heals.get('backend')?.resolve()
  await disturbance.settled()
  expect(disturbance.isOver()).toBe(true)
})

test('a fault that needs two targets has nothing beside it', async () => {
  const writing: Fault = { atCall: 1, target: 'gateway-a', action: 'kill-writing', forMs: 0 }
  const { disturbance, begun, heals } = disturb([at(1, 'redis'), writing, at(1, 'backend')])
  disturbance.progress(1)
  expect(begun).toEqual(['redis'])
  heals.get('redis')?.resolve()
  await expect.poll(() => begun).toEqual(['redis', 'gateway-a'])
  expect([...disturbance.active()]).toEqual(['gateway-a', 'postgres'])
  heals.get('gateway-a')?.resolve()
  await expect.poll(() => begun.at(-1)).toBe('backend')
})

test('faults that are late let some calls finish between them', async () => {
  const { disturbance, begun, heals } = disturb([at(1, 'redis'), at(2, 'postgres')])
  disturbance.progress(5)
  heals.get('redis')?.resolve()
  await expect.poll(() => disturbance.active().size).toBe(0)
  disturbance.progress(12)
  expect(begun).toEqual(['redis'])
  // The calls that it waits for are made, although they are far behind its place.
  await disturbance.reached(13)
  disturbance.progress(13)
  expect(begun).toEqual(['redis', 'postgres'])
})

test('a server that does not come back ends it, and lets the calls go on', async () => {
  const { disturbance, heals } = disturb([at(1, 'redis'), at(100, 'postgres')])
  disturbance.progress(1)
  heals.get('redis')?.reject(new Error('gone for good'))
  await disturbance.reached(1_000)
  expect(disturbance.isOver()).toBe(true)
  await expect(disturbance.settled()).rejects.toThrow('gone for good')
})

test('an interruption begins nothing more and holds nobody', async () => {
  const interrupted = new AbortController()
  const { disturbance, begun } = disturb([at(1, 'redis')], interrupted.signal)
  const held = disturbance.reached(1_000)
  interrupted.abort()
  await held
  disturbance.progress(1)
  expect(begun).toEqual([])
})
