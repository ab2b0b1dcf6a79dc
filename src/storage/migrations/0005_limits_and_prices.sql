-- Ceilings that administrators set, beside the tiers'. What scope and name mean: src/limits/limit-rule.ts.
create table limit_rules (
  scope text collate "C" not null check (scope in ('organization', 'consumer', 'key', 'service', 'service_consumer')),
  -- No foreign key: it names a row of another table for each scope. Whoever writes looks that it exists.
  subject_id text collate "C" not null,
  -- Empty: calls to all services.
  service_id text collate "C" not null default '',
  name text collate "C" not null,
  amount bigint not null,
  -- Null: twice the amount.
  burst bigint,
  currency text,
  updated_at timestamptz(3) not null default now(),
  -- One rule a subject, service and name; also the order of pages.
  primary key (scope, subject_id, service_id, name),
  constraint limit_rules_service_check check (scope not in ('service', 'service_consumer') or service_id = ''),
  constraint limit_rules_default_check check (
    scope <> 'service_consumer' or name in ('requests_per_second', 'tokens_per_month')
  ),
  constraint limit_rules_burst_check check (
    burst is null or name = 'requests_per_second' and burst between 1 and 100000000
  ),
  constraint limit_rules_currency_check check (
    case name when 'cost_per_month' then coalesce(currency, '') ~ '^[A-Z]{3}$' else currency is null end
  ),
  constraint limit_rules_amount_check check (
    case name
      when 'requests_per_second' then amount between 1 and 1000000
      when 'requests_per_minute' then amount between 1 and 50000000
      when 'tokens_per_minute' then amount between 1 and 50000000
      when 'concurrent_requests' then amount between 1 and 1000000
      when 'tokens_per_month' then amount between 0 and 1000000000000
      when 'cost_per_month' then amount between 0 and 8000000000000000
      else false
    end
  )
);

create trigger limit_rules_bump after insert or update or delete or truncate on limit_rules
  for each statement execute function bump_control_version();

alter table prices
  -- Grows with every price: of two that are effective at the same instant, the one that was added later is in force.
  add column ordinal bigint not null generated always as identity,
  -- Rates of calls from an input size on: [{"minInputTokens": …, and the five rates of a call, by the names of
  -- PriceTier in src/registry/records.ts}, …], by ascending size. In the row, so that they are as final as the row is.
  add column tiers jsonb not null default '[]' check (jsonb_typeof(tiers) = 'array'),
  drop constraint prices_kind_check,
  add constraint prices_kind_check check (kind in ('per_token', 'per_request', 'subscription')),
  drop constraint prices_model_check,
  add constraint prices_model_check check (
    case kind
      when 'per_token' then input_nanos_per_million is not null and output_nanos_per_million is not null
        and request_nanos is null
      else (kind = 'per_request') = (request_nanos is not null) and tiers = '[]'
        and coalesce(input_nanos_per_million, output_nanos_per_million, cached_input_nanos_per_million,
          cache_write_input_nanos_per_million, reasoning_output_nanos_per_million) is null
    end
  );
