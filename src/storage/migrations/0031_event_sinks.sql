-- Where domain events go, and how far each sink is. The events are the changes themselves: what was committed is told.
create table event_sinks (
  name text collate "C" primary key,
  -- Every change up to here was delivered, or stands in event_deliveries.
  position bigint not null,
  -- The one process that delivers, and until when no other one may.
  holder text,
  held_until timestamptz,
  -- When a process last delivered, or tried to: what no process is configured for any more holds nothing back for ever.
  seen_at timestamptz not null
);

-- Changes that were passed over without being delivered: they wait for another attempt, or for one of the same resource that
-- is before them, or are dead letters. A change that stands here is not trimmed.
create table event_deliveries (
  sink text collate "C" not null references event_sinks (name) on delete cascade,
  position bigint not null references changes (position),
  resource_kind text collate "C" not null,
  resource_id text collate "C" not null,
  attempts integer not null,
  first_failed_at timestamptz,
  next_attempt_at timestamptz not null,
  last_error text not null,
  -- Set: no more attempts are made.
  dead_at timestamptz,
  primary key (sink, position)
);

-- What of a resource waits, the oldest first.
create index event_deliveries_waiting_idx on event_deliveries (sink, resource_kind, resource_id, position)
  where dead_at is null;
-- Which changes may be trimmed.
create index event_deliveries_position_idx on event_deliveries (position);
