-- What a key may do, whence it comes, and when it was last used.

alter table api_keys
  add column environment text not null default 'live' check (environment in ('live', 'test')),
  add column metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
  -- Empty: not narrowed. Ids or names of services, permissions, names of models.
  add column scope_services text[] not null default '{}',
  add column scope_permissions text[] not null default '{}',
  add column scope_models text[] not null default '{}',
  -- Null: no limits of its own by a tier.
  add column tier text check (tier in ('basic', 'premium', 'enterprise')),
  -- True: the tier's limits stand in the place of the consumer's, instead of beside them.
  add column tier_replaces boolean not null default false,
  -- The key that it was made with: it ends with that one.
  add column made_with text collate "C" constraint api_keys_made_with_fkey references api_keys (id),
  -- The key in whose place it was made; a key has one successor.
  add column rotated_from text collate "C" constraint api_keys_rotated_from_fkey references api_keys (id)
    constraint api_keys_rotated_from_key unique,
  -- SHA-256 of the request that made it, when that may be repeated.
  add column request_digest text,
  -- Moves with every change of the row.
  add column revision bigint not null default 1;

create index api_keys_made_with_idx on api_keys (made_with) where made_with is not null;

-- Apart from api_keys, whose changes every gateway is told of.
create table api_key_uses (
  key_id text collate "C" primary key references api_keys (id),
  used_at timestamptz(3) not null,
  address text not null
);
