-- The ledger. No foreign keys into the control plane: an event is accepted whatever became of its consumer or service.

-- One row an attempt. Partitions (one a UTC month, usage_records_YYYY_MM) are made ahead by the process itself; there is
-- no default partition, because it would block attaching and detaching: usage_quarantine takes what fits nowhere.
create table usage_records (
  id uuid not null,
  request_id uuid not null,
  organization_id text not null,
  consumer_id text not null,
  service_id text not null,
  endpoint_id text not null,
  key_id text not null,
  start_time timestamptz not null,
  duration_ms bigint not null,
  status text not null,
  error_reason text not null,
  -- Disjoint parts: every total is derived.
  input_tokens bigint not null,
  cached_input_tokens bigint not null,
  cache_write_input_tokens bigint not null,
  output_tokens bigint not null,
  reasoning_output_tokens bigint not null,
  usage_source text not null,
  cost_nanos bigint not null,
  currency text not null,
  price_version text not null,
  model text not null,
  attempt integer not null,
  metadata jsonb not null,
  recorded_at timestamptz not null default now(),
  primary key (id, start_time)
) partition by range (start_time);

-- Read backwards: newest first, and the keyset of a page is a row comparison.
create index usage_records_consumer on usage_records (consumer_id, start_time, id);
create index usage_records_service on usage_records (service_id, start_time);
create index usage_records_request on usage_records (request_id);

-- A unique index on usage_records must contain its partition key, so this table makes event ids unique everywhere.
create table usage_seen (
  event_id uuid not null primary key,
  seen_at timestamptz not null default now()
) partition by hash (event_id);

do $$
begin
  for part in 0..15 loop
    execute format(
      'create table usage_seen_%s partition of usage_seen for values with (modulus 16, remainder %s)',
      lpad(part::text, 2, '0'), part);
  end loop;
end
$$;

-- Additive counters by hour and dimension, written in the statement that writes the ledger.
create table usage_hourly (
  hour timestamptz not null,
  organization_id text not null,
  consumer_id text not null,
  service_id text not null,
  key_id text not null,
  model text not null,
  status text not null,
  currency text not null,
  requests bigint not null,
  input_tokens bigint not null,
  cached_input_tokens bigint not null,
  cache_write_input_tokens bigint not null,
  output_tokens bigint not null,
  reasoning_output_tokens bigint not null,
  cost_nanos bigint not null,
  duration_ms bigint not null,
  primary key (consumer_id, service_id, hour, organization_id, key_id, model, status, currency)
) with (fillfactor = 70);

create index usage_hourly_organization on usage_hourly (organization_id, hour);

-- Events that the ledger could not take, whole, for people to look at.
create table usage_quarantine (
  -- SHA-256 of the event's text: a repeated delivery changes nothing.
  digest text not null primary key,
  reason text not null,
  event text not null,
  quarantined_at timestamptz not null default now()
);
