-- Items: documents under namespaces and keys, and the vectors they are found by.

-- Items: key-value documents under namespaces, with their vectors. A namespace is text that sorts as its labels do.
create table items (
  ord bigint generated always as identity,
  tenant text collate "C" not null,
  namespace text collate "C" not null,
  key text collate "C" not null,
  value text not null,                    -- JSON
  created_at bigint not null,
  updated_at bigint not null,
  expires_at bigint,                      -- when it may be swept away
  lifetime bigint,                        -- microseconds that a read or a write gives it anew
  primary key (tenant, ord)
);
create unique index items_by_key on items (tenant, namespace, key);
create index items_by_expiry on items (tenant, expires_at) where expires_at is not null;

create table item_vectors (
  tenant text collate "C" not null,
  item bigint not null,
  space text collate "C" not null,        -- the embedding's model and dimensions: spaces never mix
  path text collate "C" not null,         -- of the embedded text in the value
  vector bytea not null,                  -- float32, little-endian
  primary key (tenant, item, path),
  foreign key (tenant, item) references items (tenant, ord) on delete cascade
);

alter table items enable row level security;
alter table items force row level security;
create policy tenant_rows on items
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table item_vectors enable row level security;
alter table item_vectors force row level security;
create policy tenant_rows on item_vectors
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
