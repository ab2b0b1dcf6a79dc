-- Which protocol a service's backends speak, and what they must be told in it.

alter table services
  -- OpenAI-compatible backends that refuse stream_options: usage of their streams is estimated.
  add column refuses_stream_options boolean not null default false,
  -- Of protocol json: where bodies tell what matters, by the names of JsonPointers in src/providers/json-provider.ts.
  add column json_pointers jsonb not null default '{}' check (jsonb_typeof(json_pointers) = 'object');

-- All endpoints of a service have the same protocol: whoever writes looks.
alter table endpoints
  drop constraint endpoints_protocol_check,
  add constraint endpoints_protocol_check check (
    protocol in ('openai', 'azure_openai', 'anthropic', 'gemini', 'ollama', 'json', 'grpc')
  ),
  -- How the credential is shown. Null: the protocol's own way.
  add column auth text check (auth in ('bearer', 'x-api-key', 'x-goog-api-key', 'api-key')),
  -- What the backend is asked for. Empty: the service's name, or what the request names.
  add column model text not null default '' check (length(model) <= 256);
