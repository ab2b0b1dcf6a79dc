-- A call may need several attempts. The record of its last one has its usage and cost and counts as its request; those of
-- the attempts before it count nothing (requests 0), so that sums are of calls.
alter table usage_records
  drop constraint usage_records_requests_check,
  add constraint usage_records_requests_check check (requests in (1, 0, -1)),
  drop constraint usage_records_check,
  add constraint usage_records_corrects_check check (requests >= 0 or corrects is not null),
  add constraint usage_records_superseded_check check (
    requests <> 0
    or cost_nanos = 0 and input_tokens = 0 and cached_input_tokens = 0 and cache_write_input_tokens = 0
      and output_tokens = 0 and reasoning_output_tokens = 0
  );
