-- How the calls to a name are shared among its versions.
create table traffic_splits (
  name text collate "C" primary key,
  -- [{"version": "1.0.0", "weight": 90}, …]. None: the name has no split any more; the row keeps the revision, so that no etag
  -- comes again.
  shares jsonb not null check (jsonb_typeof(shares) = 'array'),
  sticky boolean not null,
  revision bigint not null
);

create trigger traffic_splits_bump after insert or update or delete or truncate on traffic_splits
  for each statement execute function bump_control_version();
