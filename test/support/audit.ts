import type { Sql } from '../../src/storage/postgres.ts'

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
