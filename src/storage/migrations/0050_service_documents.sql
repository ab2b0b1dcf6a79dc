-- OpenAPI or Protocol Buffers of services. Not in a snapshot: they are large, and no call needs them. What a document is
-- stands in the profile of its service, which changes in the same transaction.
create table service_documents (
  service_id uuid primary key references services (id),
  content text not null check (octet_length(content) between 1 and 524288)
);
