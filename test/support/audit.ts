import type { RouteRequestResponse } from '../../gen/marketplace/v1/consumption_pb.ts'
import { readPracticeLog } from '../../src/practice/log.ts'
import type { Sql } from '../../src/storage/postgres.ts'

/** The books of one consumer: what its calls left in the ledger, and what its backend wrote down itself. */
export interface Books {
  readonly records: readonly LedgerRecord[]
  /** Ids of the calls that reached the backend, whatever became of them there. */
  readonly backendCalls: ReadonlySet<string>
  /** Tokens that the backend reported, by call. */
  readonly backendTokens: ReadonlyMap<string, number>
}

export interface LedgerRecord {
  readonly requestId: string
  readonly status: string
  readonly source: string
  readonly tokens: number
  readonly costNanos: number
}

export async function readBooks(sql: Sql, consumerId: string, backendLog: string): Promise<Books> {
  const records = await sql<LedgerRecord[]>`
    select request_id as "requestId", status, usage_source as source, cost_nanos as "costNanos",
      input_tokens + cached_input_tokens + cache_write_input_tokens + output_tokens + reasoning_output_tokens as tokens
    from usage_records where consumer_id = ${consumerId}`
  const backendCalls = new Set<string>()
  const backendTokens = new Map<string, number>()
  for (const { requestId, usage } of readPracticeLog(backendLog)) {
    if (requestId === null) continue
    backendCalls.add(requestId)
    if (usage !== null) backendTokens.set(requestId, usage.promptTokens + usage.completionTokens)
  }
  return { records: [...records], backendCalls, backendTokens }
}

/** Calls with more than one record. */
export function doubled(books: Books): string[] {
  const seen = new Set<string>()
  return books.records.flatMap(({ requestId, status }) => {
    if (seen.has(requestId)) return [`${requestId} has a second record, ${status}`]
    seen.add(requestId)
    return []
  })
}

/** Answers whose record is missing, or differs from what the caller was told or the backend reported. */
export function unrecorded(answers: readonly RouteRequestResponse[], books: Books): string[] {
  const records = new Map(books.records.map((record) => [record.requestId, record]))
  return answers.flatMap(({ requestId, cost, usage }) => {
    const record = records.get(requestId)
    if (record === undefined) return [`${requestId} was answered and has no record`]
    const told = `succeeded ${usage?.totalTokens} tokens ${cost?.amountNanos} nanos`
    const kept = `${record.status} ${record.tokens} tokens ${record.costNanos} nanos`
    if (told !== kept) return [`${requestId} was answered as ${told} and recorded as ${kept}`]
    const reported = record.source === 'estimated' ? record.tokens : books.backendTokens.get(requestId)
    return reported === record.tokens ? [] : [`${requestId}: the backend reported ${reported}, the record has ${kept}`]
  })
}

/** Calls that the backend worked for and nobody recorded. */
export function unpaid(books: Books): string[] {
  const recorded = new Set(books.records.map(({ requestId }) => requestId))
  return [...books.backendCalls].filter((id) => !recorded.has(id)).map((id) => `${id} was served and has no record`)
}

/**
 * Calls that cost something although they never reached the backend. Not the abandoned ones: when a gateway dies between
 * admission and its backend, nobody can know, and the reservation stands.
 */
export function overcharged(books: Books): string[] {
  return books.records.flatMap(({ requestId, status, costNanos }) =>
    costNanos === 0 || status === 'abandoned' || books.backendCalls.has(requestId)
      ? []
      : [`${requestId} (${status}) was never served and costs`],
  )
}

/** Differences between the ledger and the hourly rollup, and what is in quarantine. */
export async function unbalanced(sql: Sql): Promise<string[]> {
  const [sums] = await sql<[{ ledger: string; rollup: string; quarantined: number }]>`
    select
      (select concat_ws(' ', sum(requests), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_input_tokens),
        sum(output_tokens), sum(reasoning_output_tokens), sum(cost_nanos),
        sum(requests * duration_ms)) from usage_records) as ledger,
      (select concat_ws(' ', sum(requests), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_input_tokens),
        sum(output_tokens), sum(reasoning_output_tokens), sum(cost_nanos), sum(duration_ms)) from usage_hourly) as rollup,
      (select count(*)::int from usage_quarantine) as quarantined`
  const wrong = sums.ledger === sums.rollup ? [] : [`ledger ${sums.ledger}, rollup ${sums.rollup}`]
  return sums.quarantined === 0 ? wrong : [...wrong, `${sums.quarantined} events in quarantine`]
}
