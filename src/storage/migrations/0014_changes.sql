-- What was changed, by whom, and who was refused what.

-- The log of the control plane: one row a change of one resource, written in the transaction that makes it. What follows
-- the control plane from outside (watchers, the outbox) reads it. `position` comes from control_version, whose row a
-- transaction holds until it commits: the order of positions is the order of commits, and nobody who reads on from the
-- last position that he saw misses one.
create table changes (
  position bigint primary key,
  id uuid not null constraint changes_id_key unique,
  -- Kind of the resource and what became of it, such as 'service.registered'.
  type text collate "C" not null,
  resource_kind text collate "C" not null,
  resource_id text collate "C" not null,
  actor text not null,
  request_id text not null,
  created_at timestamptz(3) not null,
  -- The resource after the change, as JSON of its message; null when there is none.
  resource jsonb
);

-- A watcher's own kind, on from a position.
create index changes_resource_kind_position_idx on changes (resource_kind, position);

-- The audit log is split into chains, so that writers need not queue behind one lock: whoever writes takes a chain that
-- nobody holds. A chain's last hash stands here, that the end of a chain cannot be cut off without a trace.
create table audit_chains (
  chain smallint primary key,
  length bigint not null check (length >= 0),
  hash text collate "C" not null
);

insert into audit_chains (chain, length, hash) select chain, 0, '' from generate_series(0, 15) as chain;

create table audit_records (
  chain smallint not null references audit_chains (chain),
  -- From 1, without a gap in its chain.
  sequence bigint not null,
  id uuid not null constraint audit_records_id_key unique,
  created_at timestamptz(3) not null,
  kind text collate "C" not null check (kind in ('change', 'denial')),
  -- Of a change its type; of a denial the RPC.
  action text collate "C" not null,
  actor text collate "C" not null,
  -- Kind and id, such as 'service/0193…'; empty when a denial is about none.
  resource text collate "C" not null,
  -- Organization that the resource, or else the actor, belongs to; empty for none.
  organization_id text collate "C" not null,
  reason text not null,
  -- How many times: denials that are alike and come within a moment share a record.
  count integer not null check (count >= 1),
  request_id text not null,
  address text not null,
  user_agent text not null,
  -- JSON of the resource, as text: it is hashed as it stands.
  before text,
  after text,
  previous_hash text collate "C" not null,
  hash text collate "C" not null,
  primary key (chain, sequence)
);

create index audit_records_created_at_id_idx on audit_records (created_at desc, id desc);
create index audit_records_resource_idx on audit_records (resource, created_at desc, id desc);
create index audit_records_actor_idx on audit_records (actor, created_at desc, id desc);

create function refuse_audit_change() returns trigger language plpgsql as $$
begin
  raise exception 'an audit record is never changed';
end
$$;

create trigger audit_records_are_final before update or delete on audit_records
  for each row execute function refuse_audit_change();
create trigger audit_records_stay before truncate on audit_records
  for each statement execute function refuse_audit_change();
