-- What becomes of running calls whose key ends.
alter table services
  add column on_revoke text not null default 'finish' check (on_revoke in ('finish', 'cancel'));
