-- Services that change: whose they are, where they stand in their lives, and what they say of themselves.

alter table services
  -- Moves with every change of the service, its endpoints included; what it is served as is the service's etag.
  add column revision bigint not null default 1,
  add column updated_at timestamptz(3) not null default now(),
  -- Null: the operator's.
  add column organization_id uuid constraint services_organization_id_fkey references organizations (id),
  -- By the names of ServiceProfile in src/registry/service-profile.ts; what is missing is as in its emptyProfile.
  add column profile jsonb not null default '{}' check (jsonb_typeof(profile) = 'object'),
  add column status_since timestamptz(3) not null default now(),
  add column status_reason text not null default '',
  -- What callers of a deprecated service are told; kept when it is suspended or retired.
  add column deprecated_at timestamptz(3),
  add column sunset_at timestamptz(3),
  add column deprecation_message text not null default '',
  -- Id, name or name@version. No foreign key: a name means another row from time to time.
  add column successor text collate "C" not null default '';

update services set deprecated_at = now() where status = 'deprecated';

alter table services
  add constraint services_deprecation_check check (
    deprecated_at is not null or (status <> 'deprecated' and sunset_at is null)
  );
