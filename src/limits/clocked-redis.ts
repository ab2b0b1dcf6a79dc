import type { RedisClient } from '../storage/redis.ts'
import { asArray } from './redis-scripts.ts'

const clockKey = 'test:clock'

/**
 * A real Redis whose scripts read their clock from a key, and whose answers can be lost: what a program needs to say when
 * things happen. Everything else goes to the server as it is.
 */
export class ClockedRedis {
  /** As this client, for those who are tested. */
  readonly client: RedisClient
  readonly #redis: RedisClient
  /** Part of the name of a key: the answer of the next script with such a key is lost. */
  #losing: string | undefined
  #nowMs = 0

  constructor(redis: RedisClient) {
    this.#redis = redis
    const call = (command: string, ...args: (string | Buffer | number)[]) =>
      this.#call(command, args, (...all) => redis.call(...all))
    const callBuffer = (command: string, ...args: (string | Buffer | number)[]) =>
      this.#call(command, args, (...all) => redis.callBuffer(...all))
    this.client = new Proxy(redis, {
      get(target, name) {
        if (name === 'call') return call
        if (name === 'callBuffer') return callBuffer
        const value: unknown = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
  }

  loseAnswer(key: string): void {
    this.#losing = key
  }

  /** What Redis itself lets go of in time goes on with this clock. */
  async setClock(nowMs: number): Promise<void> {
    const passedMs = this.#nowMs === 0 ? 0 : nowMs - this.#nowMs
    this.#nowMs = nowMs
    await this.#redis.call('set', clockKey, nowMs)
    for (const key of asArray(await this.#redis.call('keys', '*:claim:*')).map(String)) {
      const left = Number(await this.#redis.call('pttl', key))
      await this.#redis.call('pexpire', key, left - passedMs)
    }
  }

  /** Everything is gone, but the time is not. */
  async loseData(): Promise<void> {
    await this.#redis.multi().flushall().set(clockKey, this.#nowMs).exec()
  }

  async #call(
    command: string,
    args: readonly (string | Buffer | number)[],
    run: (command: string, ...args: (string | Buffer | number)[]) => Promise<unknown>,
  ): Promise<unknown> {
    // The script itself is asked for.
    if (command === 'evalsha') throw new Error('NOSCRIPT')
    if (command !== 'eval') return run(command, ...args)
    const [lua, ...rest] = args
    const body = String(lua).replace("redis.call('TIME')", `{ redis.call('GET', '${clockKey}') / 1000, 0 }`)
    const reply = await run(command, body, ...rest)
    const losing = this.#losing
    if (losing === undefined || !rest.some((arg) => String(arg).includes(losing))) return reply
    // Of a question that is asked again at once; calls of a batch are answered each by itself.
    if (['unseeded', 'generation'].includes(String(asArray(reply).flat()[0]))) return reply
    this.#losing = undefined
    throw new Error('Connection is closed.')
  }
}
