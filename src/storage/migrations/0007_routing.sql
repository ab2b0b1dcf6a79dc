-- How calls reach a service's endpoints, and what becomes of those whose caller left. Null deadlines: none of its own.

alter table services
  add column routing text not null default 'weighted' check (routing in ('weighted', 'least_latency')),
  add column on_disconnect text not null default 'cancel' check (on_disconnect in ('cancel', 'drain')),
  -- Null: until the call's deadline.
  add column drain_limit_ms integer check (drain_limit_ms between 1 and 3600000);

-- Position is the order in which a service's endpoints are shown; weight and priority say which is called.
alter table endpoints
  add column weight integer not null default 1 check (weight between 1 and 1000),
  add column priority integer not null default 0 check (priority between 0 and 100),
  add column connect_timeout_ms integer check (connect_timeout_ms between 1 and 60000),
  add column headers_timeout_ms integer check (headers_timeout_ms between 1 and 3600000),
  add column first_token_timeout_ms integer check (first_token_timeout_ms between 1 and 3600000),
  add column idle_timeout_ms integer check (idle_timeout_ms between 1 and 3600000);
