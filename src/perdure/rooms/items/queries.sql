-- Documents under namespaces and keys. A namespace and all below it are the texts between two bounds.
-- `+tenant` keeps SQLite from walking an index of the tenant where the rows' numbers are given.

-- macro: columns
i.ord, i.namespace, i.key, i.value, i.created_at, i.updated_at, i.expires_at

-- name: get
-- does: The item at a namespace and a key.
select {columns}
from items i
where i.tenant = :tenant and i.namespace = :namespace and i.key = :key
  and (i.expires_at is null or i.expires_at > :now)  --if living
;

-- name: by_ord
-- does: The items with these numbers.
select {columns}
from items i
where +i.tenant = :tenant and i.ord in (select value from json_each(:ords))  --if sqlite
where i.tenant = :tenant and i.ord = any(:ords)                              --if postgres
;

-- name: page
-- does: The items of a range of namespaces that match a filter, the latest change first.
-- scan: the order is that of all namespaces of the range together; a range is what one caller keeps
select {columns}
from items i
where i.tenant = :tenant
  and i.namespace > :after
  and i.namespace < :high                            --if high
  and (i.expires_at is null or i.expires_at > :now)  --if living
  and {where}                                        --if where
order by i.updated_at desc, i.namespace, i.key
limit :limit offset :offset;

-- name: scan
-- does: The next items of a range of namespaces, in order of namespace and key, of which a filter may let some through.
select {columns}
from items i
where i.tenant = :tenant
  and (i.namespace, i.key) > (:after, :key)
  and i.namespace < :high                            --if high
  and (i.expires_at is null or i.expires_at > :now)  --if living
  and {where}                                        --if where
order by i.namespace, i.key
limit :limit;

-- name: vectors
-- does: The vectors of the next items of a range of namespaces; an item without one has one row.
select p.ord, p.namespace, p.key, p.updated_at, v.vector
  , p.value  --if whole
from (
  select i.ord, i.namespace, i.key, i.updated_at, i.value
  from items i
  where i.tenant = :tenant
    and (i.namespace, i.key) > (:after, :key)
    and i.namespace < :high                            --if high
    and (i.expires_at is null or i.expires_at > :now)  --if living
    and {where}                                        --if where
  order by i.namespace, i.key
  limit :limit
) p
left join item_vectors v on v.tenant = :tenant and v.item = p.ord and v.space = :space
order by p.namespace, p.key;

-- name: namespaces
-- does: The next namespaces that hold items, in order, each found by one step in the index however many items it holds.
with recursive found (number, namespace) as (
  select 1, (
    select min(i.namespace) from items i
    where i.tenant = :tenant and i.namespace > :after
      and i.namespace < :high                            --if high
      and (i.expires_at is null or i.expires_at > :now)  --if living
  )
  union all
  select f.number + 1, (
    select min(i.namespace) from items i
    where i.tenant = :tenant and i.namespace > f.namespace
      and i.namespace < :high                            --if high
      and (i.expires_at is null or i.expires_at > :now)  --if living
  )
  from found f
  where f.namespace is not null and f.number < :limit
)
select namespace from found where namespace is not null order by namespace;

-- name: put
-- does: Keeps an item; one that is there keeps the time it was created at.
insert into items (tenant, namespace, key, value, created_at, updated_at, expires_at, lifetime)
values (:tenant, :namespace, :key, :value, :created_at, :updated_at, :expires_at, :lifetime)
on conflict (tenant, namespace, key) do update
set value = excluded.value, updated_at = excluded.updated_at, expires_at = excluded.expires_at,
  lifetime = excluded.lifetime;

-- name: drop_vectors
-- does: Forgets the vectors of an item whose value is another now.
delete from item_vectors
where tenant = :tenant
  and item in (select i.ord from items i where i.tenant = :tenant and i.namespace = :namespace and i.key = :key);

-- name: add_vector
-- does: Keeps one vector of an item.
insert into item_vectors (tenant, item, space, path, vector)
select :tenant, i.ord, :space, :path, :vector
from items i
where i.tenant = :tenant and i.namespace = :namespace and i.key = :key;

-- name: delete
-- does: Deletes an item, and with it its vectors.
delete from items where tenant = :tenant and namespace = :namespace and key = :key;

-- name: refresh
-- does: Gives an item its lifetime anew.
update items set expires_at = :now + lifetime
where tenant = :tenant and ord = :ord and lifetime is not null;

-- name: expire
-- does: Deletes some of the items whose life is over.
delete from items
where +tenant = :tenant  --if sqlite
where tenant = :tenant   --if postgres
  and ord in (select i.ord from items i where i.tenant = :tenant and i.expires_at <= :now limit :limit);
