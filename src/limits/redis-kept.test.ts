import { describe, expect, it } from 'vitest'
import { admission, usageEvent } from './conformance-support.ts'
import { RedisKept } from './redis-kept.ts'

function append(kept: RedisKept, entry: string): void {
  kept.append({ entry, event: usageEvent(), ended: 's', callId: 'c' })
}

describe('what a process keeps of its events', () => {
  it('is let go when the usage stream was trimmed beyond them', () => {
    const kept = new RedisKept(60_000)
    for (const entry of ['5-1', '5-2', '6-0', '10-0']) append(kept, entry)
    kept.forget('6-0', '12-0')
    expect(kept.events().map(({ entry }) => entry)).toEqual(['6-0', '10-0'])
    kept.forget('', '9-9')
    expect(kept.events().map(({ entry }) => entry)).toEqual(['10-0'])
    kept.forget('', '10-0')
    expect(kept.events()).toEqual([])
    expect(kept.newest).toBe('10-0')
  })

  it('is bounded: the oldest go first', () => {
    const kept = new RedisKept(60_000)
    const event = usageEvent()
    for (let number = 0; number < 100_010; number++)
      kept.append({ entry: `7-${number}`, event, ended: 's', callId: 'c' })
    expect(kept.events()).toHaveLength(100_000)
    expect(kept.events()[0]?.entry).toBe('7-10')
  })

  it('has its newest entry from the Redis where it was appended last', () => {
    const kept = new RedisKept(60_000)
    for (const entry of ['900-0', '901-0']) append(kept, entry)
    kept.events().forEach((event, index) => {
      kept.moved(event, `50-${index}`)
    })
    kept.renewed()
    expect(kept.events().map(({ entry }) => entry)).toEqual(['50-0', '50-1'])
    expect(kept.newest).toBe('50-1')
  })

  it('stays whole when another Redis numbers its entries as the one before did', () => {
    const kept = new RedisKept(60_000)
    for (const entry of ['50-0', '50-1', '50-2']) append(kept, entry)
    const before = kept.events()
    before.forEach((event, index) => {
      kept.moved(event, `50-${index + 1}`)
    })
    expect(kept.events().map(({ event }) => event)).toEqual(before.map(({ event }) => event))
  })

  it('goes on to say that a call was recorded as abandoned, until the call is settled or nobody expects that', () => {
    const [kept, impatient] = [new RedisKept(60_000), new RedisKept(-1)]
    for (const one of [kept, impatient]) {
      one.append({ entry: '5-1', event: usageEvent(), ended: 'a', callId: 'c' })
      one.forget('', '5-1')
    }
    expect(impatient.events()).toEqual([])
    expect(kept.events()).toHaveLength(1)
    kept.closed('c')
    expect(kept.events()).toEqual([])
  })
})

describe('an open call', () => {
  it('is kept with what is left of its lease until it is settled', () => {
    const kept = new RedisKept(60_000)
    const [call, other] = [admission([]), admission([], { leaseMs: 0 })]
    kept.opened(call)
    kept.opened(other)
    expect(kept.open().map(({ admission: { id }, leaseMs }) => [id, leaseMs <= 60_000 && leaseMs > 1])).toEqual([
      [call.id, true],
      [other.id, false],
    ])
    kept.closed(call.id)
    expect(kept.open()).toHaveLength(1)
  })

  it('is let go long after its lease: somebody recorded it as abandoned', () => {
    const kept = new RedisKept(60_000)
    kept.opened(admission([], { leaseMs: -61_000 }))
    kept.opened(admission([], { leaseMs: 0 }))
    kept.forget('', '0-0')
    expect(kept.open()).toHaveLength(1)
  })
})
