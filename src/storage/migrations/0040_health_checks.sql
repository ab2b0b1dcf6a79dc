-- How an endpoint is asked whether it is well, by the names of HealthCheck in src/registry/health-check.ts. Null: it is not.
alter table endpoints
  add column health_check jsonb check (jsonb_typeof(health_check) = 'object');
