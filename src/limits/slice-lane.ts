import { Cluster, type Redis } from 'ioredis'
import type { RedisClient } from '../storage/redis.ts'
import type { RedisScripts, ScriptArgument } from './redis-scripts.ts'

/** A command that was sent. */
export interface LaneRun {
  /** True when the kernel has all of it: it arrives then, even if this process is killed. */
  readonly isInKernel: boolean
  readonly reply: Promise<unknown>
}

/**
 * A connection of its own for the slices of this process, with **one command on its way at a time**: its user sends the next
 * one when the last was answered. This is what makes a written command a delivered one. Redis reads a connection 16 KiB at a
 * time, and when it cannot write an answer, because the process at the other end was killed, it drops what it has not read
 * yet. With several commands under way that were the last ones of a killed process (seen in one kill of 25 under load). With
 * one, nothing is written before all of it was read.
 */
export class SliceLane {
  readonly #redis: RedisClient
  readonly #scripts: RedisScripts

  private constructor(redis: RedisClient, scripts: RedisScripts) {
    this.#redis = redis
    this.#scripts = scripts
  }

  /** Connects to where the other connection leads. */
  static async open(other: RedisClient, scripts: RedisScripts): Promise<SliceLane> {
    const redis = other instanceof Cluster ? other.duplicate() : other.duplicate()
    // What becomes of the server is logged by the other connection.
    redis.on('error', () => undefined)
    await redis.connect()
    return new SliceLane(redis, scripts.over(redis))
  }

  get isReady(): boolean {
    return this.#redis.status === 'ready' && this.#streams().every(({ writable }) => writable)
  }

  /** Sends the script before it returns. */
  run(keys: readonly string[], args: readonly ScriptArgument[]): LaneRun {
    const reply = this.#scripts.runBatch('slices', keys, args, false)
    return { isInKernel: this.#streams().every(({ writableLength }) => writableLength === 0), reply }
  }

  /** Nothing that was sent may still be answered: begins a new connection. */
  reset(): void {
    for (const stream of this.#streams()) stream.destroy()
  }

  close(): void {
    this.#redis.disconnect()
  }

  #streams(): Redis['stream'][] {
    const nodes = this.#redis instanceof Cluster ? this.#redis.nodes('master') : [this.#redis]
    // Typed as if each node were connected.
    return nodes.flatMap(({ stream }) => stream ?? [])
  }
}
