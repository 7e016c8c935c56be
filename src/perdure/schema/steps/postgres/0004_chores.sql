-- Chores of every tenant: when it last had news, and which are due. The table is made anew, as it holds plans only; each
-- tenant that is there already is planned for.

drop table chores;
create table chores (                     -- housekeeping: one runner at a time, by lease
  name text collate "C" primary key,      -- tenant/chore
  owner text collate "C",
  lease_until bigint not null default 0,
  due_at bigint not null,
  ran_at bigint,
  outcome text collate "C",
  news_at bigint not null                 -- when the tenant last said that it had been written to
);
create index chores_by_due on chores (due_at, name);

-- The owner sees all tenants' rows while row-level security is not forced; others wait for the end of this transaction.
alter table changes no force row level security;
with recursive tenants (tenant) as (
  select min(tenant) from changes
  union all
  select (select min(c.tenant) from changes c where c.tenant > t.tenant) from tenants t where t.tenant is not null
)
insert into chores (name, due_at, news_at)
select t.tenant || '/' || k.name, moment.now, moment.now
from tenants t
cross join (values ('text_index'), ('idempotency')) k (name)
cross join (select cast(extract(epoch from now()) * 1000000 as bigint) as now) moment
where t.tenant is not null;
alter table changes force row level security;
