/**
 * `node bench/revocation.ts [--trials N] [--json FILE]`
 *
 * How fast a key that is revoked at one gateway is refused by another one: two gateways as processes, on one Redis (append-only
 * file, fsync for each write) and one Postgres. A trial makes a key, uses it at the other gateway until it is known there,
 * revokes it at the first, and asks the other again and again, one call after the other, until it is refused. Both times run
 * from the answer to the revocation: to the answer of the last call that was let in, and to the answer that refuses, which
 * leaves only after the audit log has it. All trials run twice: as it is, and with every notification of Postgres held back
 * from the other gateway, which then finds out by its own look at the version.
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Code, ConnectError } from '@connectrpc/connect'
import { ConsumerService } from '../gen/marketplace/v1/consumers_pb.ts'
import { KeyService } from '../gen/marketplace/v1/keys_pb.ts'
import { type Replicas, startReplicas } from '../test/support/replicas.ts'
import { describeMachine } from './report.ts'

const { values: flags } = parseArgs({ options: { trials: { type: 'string' }, json: { type: 'string' } } })
const trials = Number(flags.trials ?? 100)
const hardStopMs = 600_000
/** A key that is still good after this long was not revoked at all. */
const giveUpMs = 30_000

const hardStop = setTimeout(() => {
  console.error('the benchmark took too long')
  process.exit(1)
}, hardStopMs)
const machine = describeMachine(false)
const replicas = await startReplicas()
try {
  const consumerId = await makeConsumer(replicas)
  const results = []
  for (const isDeaf of [false, true]) {
    replicas.notifications.setDeaf(isDeaf)
    const times: Trial[] = []
    while (times.length < trials) times.push(await trial(replicas, consumerId))
    const notifications = isDeaf ? 'held back' : 'pass'
    results.push({ notifications, time: 'last call let in', ...figures(times.map(({ goodMs }) => goodMs)) })
    results.push({ notifications, time: 'refusal', ...figures(times.map(({ refusedMs }) => refusedMs)) })
  }
  console.log('| notifications | time to | trials | p50 ms | p99 ms | max ms |\n|---|---|---:|---:|---:|---:|')
  for (const { notifications, time, p50, p99, max } of results) {
    console.log(`| ${notifications} | ${time} | ${trials} | ${p50} | ${p99} | ${max} |`)
  }
  console.log(`\nheld back: ${replicas.notifications.dropped()} notifications\n${JSON.stringify(machine)}`)
  if (flags.json !== undefined) writeFileSync(flags.json, JSON.stringify({ machine, results }, undefined, 2))
} finally {
  await replicas.stop()
  clearTimeout(hardStop)
}

async function makeConsumer({ one, adminKey }: Replicas): Promise<string> {
  const consumers = one.client(ConsumerService, adminKey)
  const { id: organizationId } = await consumers.createOrganization({ organization: { name: 'bench' } })
  return (await consumers.createConsumer({ consumer: { name: 'bench', organizationId } })).id
}

/** Milliseconds from the revocation's answer; `goodMs` is 0 when no call was let in. */
interface Trial {
  readonly goodMs: number
  readonly refusedMs: number
}

async function trial({ one, other, adminKey }: Replicas, consumerId: string): Promise<Trial> {
  const admin = one.client(KeyService, adminKey)
  const { key, apiKey } = await admin.createKey({ consumerId })
  const keys = other.client(KeyService, key)
  await keys.listKeys({ pageSize: 1 })
  await admin.revokeKey({ consumerId, keyId: apiKey?.id ?? '' })
  const revokedMs = performance.now()
  let goodMs = 0
  while (performance.now() - revokedMs < giveUpMs) {
    try {
      await keys.listKeys({ pageSize: 1 })
      goodMs = performance.now() - revokedMs
    } catch (error) {
      if (ConnectError.from(error).code !== Code.Unauthenticated) throw error
      return { goodMs, refusedMs: performance.now() - revokedMs }
    }
  }
  throw new Error(`the key was still good after ${giveUpMs} ms`)
}

function figures(times: readonly number[]): { p50: string; p99: string; max: string } {
  const sorted = times.toSorted((a, b) => a - b)
  const at = (share: number): string =>
    (sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? 0).toFixed(0)
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}
