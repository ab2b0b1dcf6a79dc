-- Services that take over failed calls of a service, in order: [{"serviceId": "id or name", "on": ["error", "timeout"]}].
alter table services
  add column fallbacks jsonb not null default '[]' check (jsonb_typeof(fallbacks) = 'array');
