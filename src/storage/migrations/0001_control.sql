-- The control plane: who may call, with which keys, which services, at what price. All of it is small, and read into
-- memory as a whole by every gateway; api_keys is read key by key.

create table organizations (
  id uuid primary key,
  name text collate "C" not null constraint organizations_name_key unique check (length(name) between 1 and 255),
  created_at timestamptz(3) not null default now()
);

create table consumers (
  id uuid primary key,
  organization_id uuid not null constraint consumers_organization_id_fkey references organizations (id),
  name text collate "C" not null check (length(name) between 1 and 255),
  tier text not null check (tier in ('basic', 'premium', 'enterprise')),
  status text not null check (status in ('active', 'suspended', 'closed')),
  -- Ids of services, or '*'. No foreign key: a grant may outlive or precede its service.
  granted_services text[] not null default '{}',
  -- requestsPerSecond, requestBurst, tokensPerMonth: those that differ from the tier's.
  overrides jsonb not null default '{}' check (jsonb_typeof(overrides) = 'object'),
  created_at timestamptz(3) not null default now(),
  constraint consumers_organization_id_name_key unique (organization_id, name)
);

create table api_keys (
  -- The part of a key that may be seen.
  id text collate "C" primary key,
  consumer_id uuid not null constraint api_keys_consumer_id_fkey references consumers (id),
  name text not null default '',
  -- Argon2id of the whole key, in PHC string format.
  secret_hash text not null check (secret_hash like '$argon2id$%'),
  -- 16 bits of the key's SHA-256: a wrong secret is refused by it without the price of an Argon2. The other 240 bits
  -- of the secret stay unknown to whoever reads this.
  secret_tag integer not null check (secret_tag between 0 and 65535),
  created_at timestamptz(3) not null default now(),
  expires_at timestamptz(3),
  revoked_at timestamptz(3)
);

-- Pages of a consumer's keys, newest first.
create index api_keys_consumer_id_created_at_id_idx on api_keys (consumer_id, created_at desc, id desc);

create table services (
  id uuid primary key,
  name text collate "C" not null,
  version text collate "C" not null,
  description text not null default '',
  status text not null check (status in ('pending_approval', 'active', 'deprecated', 'suspended', 'retired')),
  default_max_output_tokens bigint not null check (default_max_output_tokens between 1 and 10000000),
  created_at timestamptz(3) not null default now(),
  constraint services_name_version_key unique (name, version)
);

create table endpoints (
  id uuid primary key,
  service_id uuid not null references services (id),
  -- Order of preference, from 0.
  position integer not null check (position >= 0),
  url text not null,
  protocol text not null check (protocol in ('openai')),
  -- 'env:NAME' or 'file:/path'; never the credential itself.
  credential_ref text not null default '',
  -- Null: the call's own deadline.
  timeout_ms integer check (timeout_ms between 1 and 3600000),
  constraint endpoints_service_id_position_key unique (service_id, position)
);

-- One row a version of a price, never changed: usage records name the version that they were priced by.
create table prices (
  service_id uuid not null references services (id),
  version text collate "C" not null,
  effective_from timestamptz(3) not null,
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  kind text not null check (kind in ('per_token', 'per_request')),
  -- Nano-units per million tokens.
  input_nanos_per_million bigint check (input_nanos_per_million >= 0),
  output_nanos_per_million bigint check (output_nanos_per_million >= 0),
  cached_input_nanos_per_million bigint check (cached_input_nanos_per_million >= 0),
  cache_write_input_nanos_per_million bigint check (cache_write_input_nanos_per_million >= 0),
  reasoning_output_nanos_per_million bigint check (reasoning_output_nanos_per_million >= 0),
  -- Nano-units per answered request.
  request_nanos bigint check (request_nanos >= 0),
  created_at timestamptz(3) not null default now(),
  primary key (service_id, version),
  -- Null cached, cache write and reasoning rates mean: the input's, the input's, the output's.
  constraint prices_model_check check (
    case kind
      when 'per_token' then input_nanos_per_million is not null and output_nanos_per_million is not null
        and request_nanos is null
      else request_nanos is not null and coalesce(input_nanos_per_million, output_nanos_per_million,
        cached_input_nanos_per_million, cache_write_input_nanos_per_million, reasoning_output_nanos_per_million) is null
    end
  )
);

create function refuse_price_change() returns trigger language plpgsql as $$
begin
  raise exception 'a version of a price is never changed: add a new version';
end
$$;

create trigger prices_are_final before update on prices for each row execute function refuse_price_change();

-- One row. `version` moves with every change of the tables above, in the transaction that makes it; `catalog_version`
-- with those that a snapshot holds (all but the keys). Gateways poll it, and the notification spares them the wait.
create table control_version (
  one boolean primary key default true check (one),
  version bigint not null,
  catalog_version bigint not null
);

insert into control_version (version, catalog_version) values (1, 1);

create function bump_control_version() returns trigger language plpgsql as $$
declare
  moved bigint;
begin
  update control_version
  set version = version + 1,
    catalog_version = case when tg_table_name = 'api_keys' then catalog_version else version + 1 end
  returning version into moved;
  perform pg_notify('tollgate_control', moved::text);
  return null;
end
$$;

create trigger organizations_bump after insert or update or delete or truncate on organizations
  for each statement execute function bump_control_version();
create trigger consumers_bump after insert or update or delete or truncate on consumers
  for each statement execute function bump_control_version();
create trigger api_keys_bump after insert or update or delete or truncate on api_keys
  for each statement execute function bump_control_version();
create trigger services_bump after insert or update or delete or truncate on services
  for each statement execute function bump_control_version();
create trigger endpoints_bump after insert or update or delete or truncate on endpoints
  for each statement execute function bump_control_version();
create trigger prices_bump after insert or update or delete or truncate on prices
  for each statement execute function bump_control_version();
