-- Housekeeping is leased: one runner at a time, in whatever process. A row is a tenant's chore, `tenant/chore`, or one of
-- the store itself, which goes by the tenant `default`.

-- name: plan
-- does: Makes a chore known, due at once, if it is not known yet; not where an open transaction is just doing so.
-- system
insert into chores (name, due_at, news_at)
values (:name, :now, :now)                                                                   --if sqlite
select cast(:name as text), cast(:now as bigint), cast(:now as bigint)                       --if postgres
where pg_try_advisory_xact_lock(hashtextextended('perdure chore ' || cast(:name as text), 0))  --if postgres
on conflict (name) do nothing;

-- name: hasten
-- does: Makes a chore known, and due at once also when it was planned for later.
-- system
insert into chores (name, due_at, news_at)
values (:name, :now, :now)                                                                   --if sqlite
select cast(:name as text), cast(:now as bigint), cast(:now as bigint)                       --if postgres
where pg_try_advisory_xact_lock(hashtextextended('perdure chore ' || cast(:name as text), 0))  --if postgres
on conflict (name) do update set news_at = excluded.news_at,
  due_at = case when chores.due_at < excluded.due_at then chores.due_at else excluded.due_at end;

-- name: due
-- does: Chores after a place that are due and that nobody holds, due longest first; of all tenants, or those named.
-- system
select due_at, name from chores
where (due_at, name) > (:after_due, :after_name)
  and (due_at <= :now or due_at > :horizon) and (lease_until <= :now or lease_until > :beyond)
  and name in (select value from json_each(:names))  --if names sqlite
  and name = any(:names)                             --if names postgres
order by due_at, name
limit :limit;

-- name: lease
-- does: Takes a chore that is due and that nobody holds; times further ahead than can be are a clock's that was set back.
-- system
update chores set owner = :owner, lease_until = :lease_until
where name = :name and (due_at <= :now or due_at > :horizon) and (lease_until <= :now or lease_until > :beyond)
returning news_at;

-- name: finish
-- does: Gives a chore back, says how it went and when it is due again, unless news came meanwhile; only its holder may.
-- system
update chores set owner = null, lease_until = 0, ran_at = :now, outcome = :outcome,
  due_at = case when news_at > :news_at and news_at <= :now then news_at else cast(:due_at as bigint) end
where name = :name and owner = :owner;

-- name: states
-- does: Chores: when each last ran, when it is due, how it went; due longest first, of all tenants or of those named.
-- system
select name, lease_until, due_at, ran_at, outcome from chores
where name in (select value from json_each(:names))  --if names sqlite
where name = any(:names)                             --if names postgres
order by due_at, name
limit :limit;

-- name: overdue
-- does: How many chores should have run before a moment and are not being run; of all tenants, or of those named.
-- system
select count(*) from chores
where due_at < :moment and lease_until <= :now
  and name in (select value from json_each(:names))  --if names sqlite
  and name = any(:names)                             --if names postgres
;
