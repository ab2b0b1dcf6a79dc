-- Of a service that an outside registry states: where it comes from, and what of its state is the registry's doing. Null: it
-- was registered here.
alter table services add column origin jsonb check (jsonb_typeof(origin) = 'object');
