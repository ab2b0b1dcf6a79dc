import type { Sql } from '../storage/postgres.ts'
import { writeBatch } from './ledger.ts'
import { droppedBeforeMs, ensurePartitions, spanOfMonths } from './month-partitions.ts'
import { homelessReason } from './quarantine.ts'
import type { UsageEvent } from './usage-event.ts'

/**
 * Takes the events out of quarantine that only lacked a partition (a gateway was off for months, its log was replayed
 * late), makes the partitions of their months, and writes them to the ledger. Returns how many left. What lies further
 * than 24 months back or three months ahead stays: that is a wrong clock, for people to look at. So does what lies in
 * time that retention dropped, because the ids that would tell whether the ledger had it before may be gone too.
 */
export async function releaseQuarantine(sql: Sql, nowMs: number): Promise<number> {
  const span = spanOfMonths(nowMs, -24, 3)
  const fromMs = Math.max(span.fromMs, await droppedBeforeMs(sql))
  let released = 0
  let after = ''
  for (;;) {
    const rows = await sql<{ digest: string; event: string }[]>`
      select digest, event from usage_quarantine
      where reason = ${homelessReason} and digest > ${after}
      order by digest limit 500`
    const last = rows.at(-1)
    if (last === undefined) return released
    after = last.digest
    const homeless = rows.flatMap(({ digest, event }) => {
      const parsed: UsageEvent = JSON.parse(event)
      return parsed.startMs >= fromMs && parsed.startMs < span.toMs ? [{ digest, event: parsed }] : []
    })
    if (homeless.length === 0) continue
    await ensurePartitions(
      sql,
      nowMs,
      homeless.map(({ event }) => event.startMs),
    )
    await writeBatch(
      sql,
      homeless.map(({ event }) => event),
    )
    // Only what the ledger has now: a crash between the two statements repeats the first, which changes nothing then.
    const gone = await sql`
      delete from usage_quarantine using unnest(
        ${homeless.map(({ digest }) => digest)}::text[], ${homeless.map(({ event }) => event.id)}::uuid[]
      ) as candidate (digest, event_id)
      where usage_quarantine.digest = candidate.digest
        and exists (select from usage_seen where usage_seen.event_id = candidate.event_id)`
    released += gone.count
  }
}
