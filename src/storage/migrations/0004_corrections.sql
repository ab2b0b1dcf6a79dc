-- Corrections. A record is never changed: a reversal (requests -1, figures negated) and a rebooking (requests 1) refer to
-- the record that they correct, so that every sum over records follows by itself.
alter table usage_records
  add column requests smallint not null default 1 check (requests in (1, -1)),
  -- Id of the record that this one reverses or rebooks.
  add column corrects uuid check (requests = 1 or corrects is not null);

-- Which entries correct a record: few, and asked for one record at a time.
create index usage_records_corrects on usage_records (corrects) where corrects is not null;

create function refuse_usage_record_change() returns trigger language plpgsql as $$
begin
  raise exception 'a usage record is never changed: add a correction';
end
$$;

-- Every partition gets a copy when it is attached.
create trigger usage_records_are_final before update on usage_records
  for each row execute function refuse_usage_record_change();
