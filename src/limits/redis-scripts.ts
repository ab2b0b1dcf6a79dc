import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { SpanKind } from '@opentelemetry/api'
import { TollgateError } from '../errors.ts'
import type { RedisClient } from '../storage/redis.ts'
import { withSpan } from '../telemetry/tracing.ts'

const names = [
  'generation',
  'admit',
  'settle',
  'slices',
  'reclaim',
  'late',
  'correct',
  'declare',
  'remind',
  'sweep',
  'abandon',
  'read',
  'acknowledge',
  'retire',
  'announce',
] as const

export type ScriptName = (typeof names)[number]

export type ScriptArgument = string | Buffer

/** The Lua scripts beside this file, each with the common prelude, run by digest. */
export class RedisScripts {
  readonly #redis: RedisClient
  readonly #scripts: ReadonlyMap<ScriptName, { readonly lua: string; readonly sha: string }>

  private constructor(redis: RedisClient, scripts: ReadonlyMap<ScriptName, { lua: string; sha: string }>) {
    this.#redis = redis
    this.#scripts = scripts
  }

  /** Reads the scripts from disk; Redis learns each when it is first run. */
  static async load(redis: RedisClient): Promise<RedisScripts> {
    const prelude = await read('buckets')
    const scripts = new Map<ScriptName, { lua: string; sha: string }>()
    for (const name of names) {
      const lua = `${prelude}\n${await read(name)}`
      scripts.set(name, { lua, sha: createHash('sha1').update(lua).digest('hex') })
    }
    return new RedisScripts(redis, scripts)
  }

  /** The same scripts over another connection. */
  over(redis: RedisClient): RedisScripts {
    return new RedisScripts(redis, this.#scripts)
  }

  /** Runs one script atomically. Every failure is LIMITS_UNAVAILABLE: the caller cannot know whether it ran. */
  run(name: ScriptName, keys: readonly string[], args: readonly ScriptArgument[]): Promise<unknown> {
    return traced(name, () => this.runBatch(name, keys, args, false))
  }

  /** The same for calls that have spans of their own ({@link traced}); with `isBinary` texts of the reply are Buffers. */
  runBatch(
    name: ScriptName,
    keys: readonly string[],
    args: readonly ScriptArgument[],
    isBinary: boolean,
  ): Promise<unknown> {
    return this.#run(name, (code, body) =>
      isBinary
        ? this.#redis.callBuffer(code, body, keys.length, ...keys, ...args)
        : this.#redis.call(code, body, keys.length, ...keys, ...args),
    )
  }

  #run(name: ScriptName, call: (code: string, body: string) => Promise<unknown>): Promise<unknown> {
    const script = this.#scripts.get(name)
    if (script === undefined) throw new TollgateError('INTERNAL', `no script ${name}`)
    const evaluate = async (): Promise<unknown> => {
      try {
        return await call('evalsha', script.sha)
      } catch (error) {
        if (!isReply(error, 'NOSCRIPT')) throw error
        return await call('eval', script.lua)
      }
    }
    return command(evaluate)
  }
}

/** In a span of its own, where the call is traced: the run of a script, or a part in one. */
export function traced<T>(name: ScriptName, run: () => Promise<T>): Promise<T> {
  return withSpan(`EVALSHA ${name}`, run, span)
}

const span = {
  kind: SpanKind.CLIENT,
  attributes: { 'db.system.name': 'redis', 'db.operation.name': 'EVALSHA' },
}

/**
 * Runs a command; what fails becomes LIMITS_UNAVAILABLE with the cause inside. Of a server that did not answer, or only
 * that it cannot serve, it has the metadata that {@link isUnreachable} knows.
 */
export async function command<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (cause) {
    const metadata: Record<string, string> = isServing(cause) ? {} : { unreachable: 'redis' }
    throw new TollgateError('LIMITS_UNAVAILABLE', 'limits cannot be checked at the moment', { metadata, cause })
  }
}

/** True when the shared store could not be reached; false for everything else, also for a ledger that cannot answer. */
export function isUnreachable(error: unknown): boolean {
  return error instanceof TollgateError && error.metadata.unreachable !== undefined
}

/** True for an error answer of a server that is otherwise well. */
function isServing(error: unknown): boolean {
  return (
    error instanceof Error && error.name === 'ReplyError' && !/^(LOADING|CLUSTERDOWN|MASTERDOWN)\b/.test(error.message)
  )
}

/** True for an error answer of Redis that begins with the given code, also inside a TollgateError. */
export function isReply(error: unknown, code: string): boolean {
  if (error instanceof TollgateError) return isReply(error.cause, code)
  return error instanceof Error && error.message.startsWith(code)
}

/** True when the command never left this process, because there was no connection; ioredis tells by its text only. */
export function wasNotSent(error: unknown): boolean {
  if (error instanceof TollgateError) return wasNotSent(error.cause)
  return error instanceof Error && error.message.includes('enableOfflineQueue options is false')
}

/** A reply that must be an array. */
export function asArray(reply: unknown): readonly unknown[] {
  return Array.isArray(reply) ? reply : []
}

/** Name and value pairs, as XINFO answers them. */
export function asFacts(reply: unknown): ReadonlyMap<string, unknown> {
  const flat = asArray(reply)
  const facts = new Map<string, unknown>()
  for (let index = 0; index + 1 < flat.length; index += 2) facts.set(String(flat[index]), flat[index + 1])
  return facts
}

function read(name: string): Promise<string> {
  return readFile(new URL(`./${name}.lua`, import.meta.url), 'utf8')
}
