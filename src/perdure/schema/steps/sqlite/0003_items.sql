-- Items: documents under namespaces and keys, and the vectors they are found by.

-- Items: key-value documents under namespaces, with their vectors. A namespace is text that sorts as its labels do.
create table items (
  ord integer primary key,
  tenant text not null,
  namespace text not null,
  key text not null,
  value text not null,                    -- JSON
  created_at integer not null,
  updated_at integer not null,
  expires_at integer,                     -- when it may be swept away
  lifetime integer                        -- microseconds that a read or a write gives it anew
) strict;
create unique index items_by_key on items (tenant, namespace, key);
create index items_by_expiry on items (tenant, expires_at) where expires_at is not null;

create table item_vectors (
  ord integer primary key,
  tenant text not null,
  item integer not null references items (ord) on delete cascade,
  space text not null,                    -- the embedding's model and dimensions: spaces never mix
  path text not null,                     -- of the embedded text in the value
  vector blob not null                    -- float32, little-endian
) strict;
create unique index item_vectors_by_item on item_vectors (item, path);
