-- Milliseconds from admission to the first output of a stream; null where no output of a stream came.
alter table usage_records add column first_token_ms bigint;
