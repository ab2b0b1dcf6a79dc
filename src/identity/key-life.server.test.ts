/** Random programs on keys of one consumer, against a model of their life that knows nothing of how it is stored. */
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { KeyService } from '../../gen/marketplace/v1/keys_pb.ts'
import { administrator, invoke } from '../../test/support/invoke.ts'
import { createKeyWorld, type KeyWorld } from '../../test/support/key-world.ts'
import { type PostgresServer, startPostgresServer } from '../../test/support/postgres-server.ts'
import { type Reason, TollgateError } from '../errors.ts'

let server: PostgresServer
beforeAll(async () => {
  server = await startPostgresServer()
}, 60_000)
afterAll(() => server?.stop())

/** Keys are meant by their place, modulo how many there are; `by` of 0 is an administrator, else the key of that place - 1. */
type Step =
  | { readonly kind: 'make'; readonly by: number; readonly days: number | undefined }
  | { readonly kind: 'rotate'; readonly key: number; readonly by: number; readonly overlapHours: number }
  | { readonly kind: 'update'; readonly key: number; readonly by: number; readonly days: number | undefined }
  | { readonly kind: 'revoke'; readonly key: number; readonly by: number }
  | { readonly kind: 'wait'; readonly hours: number }

const place = fc.nat(9)
const days = fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('make'), by: place, days }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('rotate'), key: place, by: place, overlapHours: fc.nat(30) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('update'), key: place, by: place, days }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('revoke'), key: place, by: place }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait'), hours: fc.integer({ min: 1, max: 40 }) }) },
)

const never = Number.POSITIVE_INFINITY
const hourMs = 3_600_000
const dayMs = 24 * hourMs

interface ModelKey {
  readonly id: string
  readonly key: string
  endMs: number
  isRevoked: boolean
  isRotated: boolean
  maker: ModelKey | undefined
}

/** Carries one program out, on the service and on the model, and compares them after each step. */
class Program {
  readonly #world: KeyWorld
  readonly #consumerId: string
  readonly #keys: ModelKey[] = []

  constructor(world: KeyWorld, consumerId: string) {
    this.#world = world
    this.#consumerId = consumerId
  }

  async run(steps: readonly Step[]): Promise<void> {
    await this.#make(undefined, undefined)
    for (const each of steps) {
      await this.#take(each)
      await this.#compare()
    }
  }

  async #take(each: Step): Promise<void> {
    if (each.kind === 'wait') {
      this.#world.nowMs += each.hours * hourMs
      return
    }
    const by = each.by === 0 ? undefined : this.#keys[(each.by - 1) % this.#keys.length]
    // One that has ended calls nothing: #compare sees that it is refused.
    if (by !== undefined && !this.#isActive(by)) return
    if (each.kind === 'make') return await this.#make(by, each.days)
    const target = this.#keys[each.key % this.#keys.length]
    if (target === undefined) return
    if (each.kind === 'rotate') return await this.#rotate(target, by, each.overlapHours * hourMs)
    if (each.kind === 'update') return await this.#update(target, by, each.days)
    await this.#revoke(target, by)
  }

  async #make(by: ModelKey | undefined, lifeDays: number | undefined): Promise<void> {
    const { nowMs } = this.#world
    const ceilingMs = by?.endMs ?? never
    const endMs = lifeDays === undefined ? ceilingMs : nowMs + lifeDays * dayMs
    const request = { consumerId: this.#consumerId, expiresInDays: lifeDays ?? 0 }
    const made = this.#world.make(request, await this.#principalOf(by))
    if (await this.#refused(made, endMs > ceilingMs ? 'KEY_SCOPE_EXCEEDED' : undefined)) return
    const { id, key } = await made
    this.#keys.push({ id, key, endMs, isRevoked: false, isRotated: false, maker: by })
  }

  async #rotate(target: ModelKey, by: ModelKey | undefined, overlapMs: number): Promise<void> {
    const { nowMs, keys } = this.#world
    const request = {
      consumerId: this.#consumerId,
      keyId: target.id,
      overlap: { seconds: BigInt(overlapMs / 1_000) },
    }
    const rotated = invoke(KeyService.method.rotateKey, keys.rotateKey, request, await this.#principalOf(by))
    const isDependent = by !== undefined && this.#makersOf(by).includes(target)
    const isOver = !this.#isActive(target) || target.isRotated
    const reason = isDependent ? 'KEY_SCOPE_EXCEEDED' : isOver ? 'KEY_INACTIVE' : undefined
    if (await this.#refused(rotated, reason)) return
    const { apiKey, key } = await rotated
    const endMs = Math.min(target.endMs, by === undefined ? (target.maker?.endMs ?? never) : by.endMs)
    const maker = by === undefined || by === target ? target.maker : by
    const made = { id: apiKey?.id ?? '', key, endMs, isRevoked: false, isRotated: false, maker }
    for (const child of this.#keys) if (child.maker === target) child.maker = made
    target.isRotated = true
    target.endMs = Math.min(target.endMs, nowMs + overlapMs)
    this.#keys.push(made)
    this.#endWithin(made)
  }

  async #update(target: ModelKey, by: ModelKey | undefined, lifeDays: number | undefined): Promise<void> {
    const { nowMs, keys } = this.#world
    const ceilingMs = Math.min(by?.endMs ?? never, target.maker?.endMs ?? never)
    const endMs = lifeDays === undefined ? (target.endMs === never ? never : ceilingMs) : nowMs + lifeDays * dayMs
    const expireTime = lifeDays === undefined ? {} : { expireTime: timestampFromMs(endMs) }
    const request = {
      apiKey: { id: target.id, consumerId: this.#consumerId, ...expireTime },
      updateMask: { paths: ['expire_time'] },
    }
    const updated = invoke(KeyService.method.updateKey, keys.updateKey, request, await this.#principalOf(by))
    const isBeyond = endMs > ceilingMs && endMs !== target.endMs
    const reason = !this.#isActive(target) ? 'KEY_INACTIVE' : isBeyond ? 'KEY_SCOPE_EXCEEDED' : undefined
    if (await this.#refused(updated, reason)) return
    target.endMs = endMs
    this.#endWithin(target)
  }

  async #revoke(target: ModelKey, by: ModelKey | undefined): Promise<void> {
    const request = { consumerId: this.#consumerId, keyId: target.id }
    const { keys } = this.#world
    await invoke(KeyService.method.revokeKey, keys.revokeKey, request, await this.#principalOf(by))
    if (target.isRevoked) return
    for (const key of this.#keys) if (key === target || this.#makersOf(key).includes(target)) key.isRevoked = true
  }

  /** Whether it was refused; throws unless it was refused so, and exactly then. */
  async #refused(work: Promise<unknown>, reason: Reason | undefined): Promise<boolean> {
    const outcome = await work.then(
      () => undefined,
      (error: unknown) => (error instanceof TollgateError ? error.reason : error),
    )
    expect(outcome).toBe(reason)
    return reason !== undefined
  }

  /** Every key is accepted or refused as the model says, and what was made with a key is no longer good than that key. */
  async #compare(): Promise<void> {
    for (const key of this.#keys) {
      const outcome = await this.#world.callerOf(key.key).then(
        () => 'active',
        (error: unknown) => (error instanceof TollgateError ? error.reason : error),
      )
      const isOver = key.endMs <= this.#world.nowMs
      expect(outcome).toBe(key.isRevoked ? 'CREDENTIAL_REVOKED' : isOver ? 'CREDENTIAL_EXPIRED' : 'active')
      if (outcome === 'active' && key.maker !== undefined) expect(this.#isActive(key.maker)).toBe(true)
    }
  }

  #endWithin(maker: ModelKey): void {
    for (const key of this.#keys) if (this.#makersOf(key).includes(maker)) key.endMs = Math.min(key.endMs, maker.endMs)
  }

  #makersOf({ maker }: ModelKey): ModelKey[] {
    return maker === undefined ? [] : [maker, ...this.#makersOf(maker)]
  }

  #isActive(key: ModelKey): boolean {
    return !key.isRevoked && key.endMs > this.#world.nowMs
  }

  async #principalOf(by: ModelKey | undefined) {
    return by === undefined ? administrator : await this.#world.callerOf(by.key)
  }
}

test('keys live and end as the model says, whatever is done to them, in any order', async () => {
  const program = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
    const world = createKeyWorld(server.sql)
    await new Program(world, (await world.newConsumer()).id).run(steps)
  })
  const seed = process.env.TOLLGATE_TEST_SEED
  const numRuns = Number(process.env.TOLLGATE_TEST_RUNS ?? 25)
  await fc.assert(program, { numRuns, ...(seed !== undefined && { seed: Number(seed) }) })
}, 120_000)
