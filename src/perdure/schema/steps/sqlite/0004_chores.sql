-- Chores of every tenant: when it last had news, and which are due. The table is made anew, as it holds plans only; each
-- tenant that is there already is planned for.

drop table chores;
create table chores (                     -- housekeeping: one runner at a time, by lease
  name text primary key,                  -- tenant/chore
  owner text,
  lease_until integer not null default 0,
  due_at integer not null,
  ran_at integer,
  outcome text,
  news_at integer not null                -- when the tenant last said that it had been written to
) strict, without rowid;
create index chores_by_due on chores (due_at, name);

with recursive tenants (tenant) as (
  select min(tenant) from changes
  union all
  select (select min(c.tenant) from changes c where c.tenant > t.tenant) from tenants t where t.tenant is not null
)
insert into chores (name, due_at, news_at)
select t.tenant || '/' || k.column1, unixepoch() * 1000000, unixepoch() * 1000000
from tenants t, (values ('text_index'), ('idempotency')) k
where t.tenant is not null;
