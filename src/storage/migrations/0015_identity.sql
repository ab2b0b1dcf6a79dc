-- Organizations and consumers with what decides about them, projects, and users, who are known from outside.

alter table organizations
  add column status text not null default 'active' check (status in ('active', 'suspended', 'closed')),
  -- Of consumers that are made without one, and the highest that the organization's own administrators may give.
  add column tier text not null default 'basic' check (tier in ('basic', 'premium', 'enterprise')),
  add column clearance text not null default 'internal'
    check (clearance in ('public', 'internal', 'confidential', 'restricted')),
  -- Empty for none.
  add column home_region text collate "C" not null default '',
  -- Ids of services, or '*', that the organization's own administrators may grant to its consumers.
  add column granted_services text[] not null default '{}',
  -- Moves with every change of the row.
  add column revision bigint not null default 1;

create table projects (
  id uuid primary key,
  organization_id uuid not null constraint projects_organization_id_fkey references organizations (id),
  name text collate "C" not null check (length(name) between 1 and 255),
  status text not null check (status in ('active', 'suspended', 'closed')),
  labels jsonb not null default '{}' check (jsonb_typeof(labels) = 'object'),
  revision bigint not null default 1,
  created_at timestamptz(3) not null default now(),
  constraint projects_organization_id_name_key unique (organization_id, name),
  constraint projects_id_organization_id_key unique (id, organization_id)
);

alter table consumers
  add column project_id uuid,
  -- Null: the organization's.
  add column clearance text check (clearance in ('public', 'internal', 'confidential', 'restricted')),
  -- Empty: the organization's.
  add column home_region text collate "C" not null default '',
  add column revision bigint not null default 1,
  add constraint consumers_id_organization_id_key unique (id, organization_id),
  add constraint consumers_project_id_fkey foreign key (project_id, organization_id)
    references projects (id, organization_id);

create table users (
  id uuid primary key,
  -- Null for users of the whole platform.
  organization_id uuid constraint users_organization_id_fkey references organizations (id),
  -- Who vouches for the subject: the issuer of tokens, 'spiffe', or 'x509'.
  issuer text collate "C" not null check (length(issuer) between 1 and 512),
  subject text collate "C" not null check (length(subject) between 1 and 512),
  display_name text not null default '',
  email text not null default '',
  status text not null check (status in ('active', 'suspended', 'closed')),
  roles text[] not null default '{}',
  -- Whom the user may call for; null for nobody. Of a user of an organization, a consumer of that organization.
  consumer_id uuid constraint users_consumer_id_fkey references consumers (id),
  revision bigint not null default 1,
  created_at timestamptz(3) not null default now(),
  constraint users_issuer_subject_key unique (issuer, subject),
  constraint users_consumer_id_organization_id_fkey foreign key (consumer_id, organization_id)
    references consumers (id, organization_id)
);

-- Pages of an organization's own, in the order of ids.
create index consumers_organization_id_id_idx on consumers (organization_id, id);
create index projects_organization_id_id_idx on projects (organization_id, id);
create index users_organization_id_id_idx on users (organization_id, id);

create trigger projects_bump after insert or update or delete or truncate on projects
  for each statement execute function bump_control_version();
create trigger users_bump after insert or update or delete or truncate on users
  for each statement execute function bump_control_version();
