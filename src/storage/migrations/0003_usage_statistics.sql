-- The bucket of a latency histogram that holds a duration: buckets grow by 1.05 / 0.95, so that the middle of one is at
-- most 5 % away from all that it holds. Bucket 0 holds 1 ms, bucket -1 holds 0 ms. What src/metering/latency.ts undoes.
create function latency_bucket(duration_ms bigint) returns smallint
language sql immutable parallel safe
return case when duration_ms < 1 then -1 else ceil(ln(duration_ms::float8) / ln(1.05::float8 / 0.95::float8)) end::smallint;

-- Latency histograms by hour, written in the statement that writes the ledger. A table beside usage_hourly and not a
-- column of it: a count can be added to, an array would be rewritten whole. Without key and model, which would multiply it.
create table usage_hourly_latency (
  hour timestamptz not null,
  consumer_id text not null,
  service_id text not null,
  status text not null,
  bucket smallint not null,
  requests bigint not null,
  primary key (consumer_id, service_id, hour, status, bucket)
) with (fillfactor = 70);

insert into usage_hourly_latency (hour, consumer_id, service_id, status, bucket, requests)
select date_trunc('hour', start_time, 'UTC'), consumer_id, service_id, status, latency_bucket(duration_ms), count(*)
from usage_records
group by 1, 2, 3, 4, 5;

-- One row: records that started before this instant were dropped by retention, and none is accepted any more. It never
-- goes back, so that the ids of dropped records need not be kept for ever to keep them from being counted again.
create table usage_retention (
  is_only boolean not null default true primary key check (is_only),
  dropped_before timestamptz not null
);

insert into usage_retention (dropped_before) values ('epoch');
