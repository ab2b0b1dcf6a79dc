-- Answers that may be given again without the backend. Null: none.
alter table services
  add column cache_ttl_ms integer check (cache_ttl_ms between 1 and 86400000),
  add column cache_sharing text not null default 'organization'
    check (cache_sharing in ('consumer', 'organization', 'everyone'));
