import { TollgateError } from '../errors.ts'
import { asArray, type ScriptArgument } from './redis-scripts.ts'

/** A call on its way to a script that takes many: what it says of itself, and who waits for the answer. */
interface Waiting {
  readonly generation: string
  readonly args: readonly ScriptArgument[]
  /** Beside the arguments: period counters that calls of a batch have in common, or ''. */
  readonly shared: string
  readonly resolve: (reply: readonly unknown[]) => void
  readonly reject: (error: unknown) => void
}

/** What a batch sends: calls in their order, and each text that they share once. */
export interface Batch {
  readonly generation: string
  readonly shared: readonly string[]
  /** Of each call its arguments, and the number of its shared text, from 1; 0 for none. */
  readonly calls: readonly { readonly args: readonly ScriptArgument[]; readonly shared: number }[]
}

/** So that one script stays short: others wait for it. */
const maxCalls = 128
const maxBytes = 256 * 1_024

/**
 * Calls of one script that come in the same turn of the event loop share one run of it, and one `fsync` of Redis. Each is
 * answered by itself, after the run: with its own part of the reply, with what the whole run failed with, or with
 * LIMITS_UNAVAILABLE when Redis could not run its part. A turn and not a pause: a call that comes alone does not wait for
 * others.
 */
export class GroupCommit {
  readonly #run: (batch: Batch) => Promise<unknown>
  #waiting: Waiting[] = []

  /** `run` answers a part of the reply for each call of the batch, or one reply that is meant for all of them. */
  constructor(run: (batch: Batch) => Promise<unknown>) {
    this.#run = run
  }

  add(generation: string, args: readonly ScriptArgument[], shared = ''): Promise<readonly unknown[]> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.length === 0) setImmediate(() => this.#flush())
      this.#waiting.push({ generation, args, shared, resolve, reject })
    })
  }

  #flush(): void {
    const waiting = this.#waiting
    this.#waiting = []
    let batch: Waiting[] = []
    let bytes = 0
    for (const call of waiting) {
      const size = sizeOf(call)
      const [first] = batch
      const isFull = batch.length === maxCalls || bytes + size > maxBytes || call.generation !== first?.generation
      if (first !== undefined && isFull) {
        void this.#send(batch)
        batch = []
        bytes = 0
      }
      batch.push(call)
      bytes += size
    }
    void this.#send(batch)
  }

  async #send(waiting: readonly Waiting[]): Promise<void> {
    const numbers = new Map<string, number>([['', 0]])
    const calls = waiting.map(({ args, shared }) => {
      const number = numbers.get(shared) ?? numbers.size
      numbers.set(shared, number)
      return { args, shared: number }
    })
    const shared = [...numbers.keys()].slice(1)
    try {
      const reply = asArray(await this.#run({ generation: waiting[0]?.generation ?? '', shared, calls }))
      waiting.forEach(({ resolve, reject }, index) => {
        const own = Array.isArray(reply[0]) ? asArray(reply[index]) : reply
        if (String(own[0]) === 'failed') reject(failed(String(own[1])))
        else resolve(own)
      })
    } catch (error) {
      for (const { reject } of waiting) reject(error)
    }
  }
}

function sizeOf({ args, shared }: Waiting): number {
  let bytes = shared.length
  for (const arg of args) bytes += arg.length
  return bytes
}

function failed(why: string): TollgateError {
  const cause = new Error(why)
  return new TollgateError('LIMITS_UNAVAILABLE', 'limits cannot be checked at the moment', { cause })
}
