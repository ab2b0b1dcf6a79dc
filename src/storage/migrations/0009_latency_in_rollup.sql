-- The latency histogram of one record. A histogram is one number: the count of bucket b stands at its decimal places
-- 12 (b + 1) and up, so that adding numbers adds histograms, reversals included. What src/metering/latency.ts reads.
create function latency_histogram(duration_ms bigint) returns numeric
language sql immutable parallel safe
return ('1e' || (12 * (latency_bucket(duration_ms) + 1))::text)::numeric;

-- In the row of the rollup, not in a table with a row for each bucket: those rows were a quarter of what a batch cost.
alter table usage_hourly add column latencies numeric not null default 0;

update usage_hourly set latencies = found.latencies
from (
  select date_trunc('hour', start_time, 'UTC') as hour, organization_id, consumer_id, service_id, key_id, model, status,
    currency, sum(requests * latency_histogram(duration_ms)) as latencies
  from usage_records
  group by 1, 2, 3, 4, 5, 6, 7, 8
) as found
where (usage_hourly.hour, usage_hourly.organization_id, usage_hourly.consumer_id, usage_hourly.service_id,
    usage_hourly.key_id, usage_hourly.model, usage_hourly.status, usage_hourly.currency)
  = (found.hour, found.organization_id, found.consumer_id, found.service_id, found.key_id, found.model, found.status,
    found.currency);

-- Where retention dropped the records, the old table alone knows, without key and model: one of the rows that it could be
-- takes all of it, so that the sums of a consumer, service and status stay as they are.
update usage_hourly set latencies = found.latencies
from (
  select hour, consumer_id, service_id, status, sum(requests * ('1e' || (12 * (bucket + 1))::text)::numeric) as latencies
  from usage_hourly_latency
  where hour < (select dropped_before from usage_retention)
  group by 1, 2, 3, 4
) as found
where usage_hourly.ctid = (
  select ctid from usage_hourly as row
  where (row.hour, row.consumer_id, row.service_id, row.status)
    = (found.hour, found.consumer_id, found.service_id, found.status)
  order by organization_id, key_id, model, currency
  limit 1
);

drop table usage_hourly_latency;

-- Nothing reads records by service alone: what is asked of a service is in the rollup.
drop index usage_records_service;
