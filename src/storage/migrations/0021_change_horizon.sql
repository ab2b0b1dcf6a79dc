-- How far back the log of changes goes. One row: changes up to `position` may be gone, and who wants to read on from before
-- it has to begin anew. Moved in the transaction that deletes them.
create table change_horizon (
  one boolean primary key default true check (one),
  position bigint not null
);

-- What was changed before there was a log is not in it.
insert into change_horizon (position)
select coalesce((select min(position) - 1 from changes), version) from control_version;
