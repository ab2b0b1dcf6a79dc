-- Policies, what they found broken, and what was decided about calls.

create table policies (
  id uuid primary key,
  name text collate "C" not null constraint policies_name_key unique,
  description text not null default '',
  mode text collate "C" not null check (mode in ('disabled', 'enforce', 'audit_only')),
  -- In force unless the mode is 'disabled'; null before the first activation.
  active_version bigint,
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now(),
  constraint policies_active_check check (mode = 'disabled' or active_version is not null)
);

-- One row a version, never changed: what was decided can be told from the version that decided it.
create table policy_versions (
  policy_id uuid not null references policies (id),
  version bigint not null check (version >= 1),
  -- JSON of marketplace.v1.PolicySpec.
  spec jsonb not null,
  comment text not null default '',
  created_at timestamptz(3) not null default now(),
  created_by text not null,
  primary key (policy_id, version)
);

alter table policies
  add constraint policies_active_version_fkey foreign key (id, active_version)
  references policy_versions (policy_id, version);

create function refuse_policy_version_change() returns trigger language plpgsql as $$
begin
  raise exception 'a version of a policy is never changed: add a new version';
end
$$;

create trigger policy_versions_are_final before update on policy_versions
  for each row execute function refuse_policy_version_change();

-- Versions that have been in force: a rollback goes to the one before.
create table policy_activations (
  policy_id uuid not null,
  version bigint not null,
  primary key (policy_id, version),
  foreign key (policy_id, version) references policy_versions (policy_id, version)
);

create trigger policies_bump after insert or update or delete or truncate on policies
  for each statement execute function bump_control_version();

-- Ids are UUIDv7 and give the order in time. Nothing that was sent is in here.
create table policy_violations (
  id uuid primary key,
  created_at timestamptz(3) not null,
  policy_id text collate "C" not null,
  policy_name text not null,
  policy_version bigint not null,
  severity text collate "C" not null check (severity in ('warning', 'critical')),
  outcome text collate "C" not null check (outcome in ('denied', 'redacted', 'marked', 'audited', 'reported')),
  message text not null,
  request_id text collate "C" not null,
  organization_id text collate "C" not null,
  consumer_id text collate "C" not null,
  service_id text collate "C" not null,
  reported_by text not null
);

create index policy_violations_policy_id_id_idx on policy_violations (policy_id, id desc);
create index policy_violations_consumer_id_id_idx on policy_violations (consumer_id, id desc);
create index policy_violations_service_id_id_idx on policy_violations (service_id, id desc);

-- What policies knew of a call and what they decided: a sample, kept for a while, to try other policies on.
create table policy_decisions (
  id uuid primary key,
  created_at timestamptz(3) not null,
  request_id text collate "C" not null,
  allowed boolean not null,
  -- As CallFacts in src/policy/facts.ts.
  facts jsonb not null,
  -- Ids of the policies that denied the call.
  denied_by text[] not null
);
