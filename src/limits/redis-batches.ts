import type { Batch } from './group-commit.ts'
import type { RedisKeys } from './redis-keys.ts'
import type { RedisScripts, ScriptArgument } from './redis-scripts.ts'

export interface RedisBatchOptions {
  readonly scripts: Pick<RedisScripts, 'runBatch'>
  readonly keys: RedisKeys
  readonly settledTtlMs: number
}

/** Runs admit.lua; of each call: id, lease, plan, event, claim, fingerprint, seeds. */
export function admitAll({ scripts, keys }: RedisBatchOptions, { generation, calls }: Batch): Promise<unknown> {
  const args: ScriptArgument[] = [generation, keys.reservations()]
  let hasClaim = false
  for (const call of calls) {
    args.push(...call.args)
    if (call.args[4] !== '') hasClaim = true
  }
  // Only a claim's answer is not text.
  return scripts.runBatch('admit', [keys.generation(), keys.leases()], args, hasClaim)
}

/** Runs settle.lua; of each call: id, event, claim, fingerprint, ttl, answer, units; the counters are shared. */
export function settleAll(
  { scripts, keys, settledTtlMs }: RedisBatchOptions,
  { generation, shared, calls }: Batch,
): Promise<unknown> {
  const args: ScriptArgument[] = [
    generation,
    keys.reservations(),
    String(settledTtlMs),
    String(shared.length),
    ...shared,
  ]
  for (const call of calls) args.push(...call.args, String(call.shared))
  return scripts.runBatch('settle', [keys.generation(), keys.leases(), keys.usage()], args, false)
}
