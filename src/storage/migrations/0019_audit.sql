-- The audit log: a chain only grows, its guards hold for every session, and its records are listed by what people ask for.

-- Without this, the end of a chain could be cut off by setting its head back, and nothing in the database would say so.
create trigger audit_chains_grow before update on audit_chains
  for each row when (new.chain <> old.chain or new.length <= old.length)
  execute function refuse_audit_change();
create trigger audit_chains_stay before insert or delete or truncate on audit_chains
  for each statement execute function refuse_audit_change();

-- Also where a session says that it is a replica, and so runs no ordinary triggers.
alter table audit_records enable always trigger audit_records_are_final;
alter table audit_records enable always trigger audit_records_stay;
alter table audit_chains enable always trigger audit_chains_grow;
alter table audit_chains enable always trigger audit_chains_stay;

create index audit_records_kind_idx on audit_records (kind, created_at desc, id desc);
create index audit_records_action_idx on audit_records (action, created_at desc, id desc);
create index audit_records_organization_id_idx on audit_records (organization_id, created_at desc, id desc);
