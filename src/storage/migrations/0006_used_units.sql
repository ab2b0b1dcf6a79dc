-- What a quarantined event adds to its scopes: quotas count it, although the ledger cannot take it. Null for what is no
-- event, or whose figures are no counts.
alter table usage_quarantine
  add column event_id uuid,
  add column organization_id text,
  add column consumer_id text,
  add column service_id text,
  add column key_id text,
  add column start_time timestamptz,
  add column currency text,
  add column tokens bigint,
  add column cost_nanos bigint;

-- What a key or a service used in a month; consumers have the primary key, organizations usage_hourly_organization.
create index usage_hourly_key on usage_hourly (key_id, hour);
create index usage_hourly_service on usage_hourly (service_id, hour);
