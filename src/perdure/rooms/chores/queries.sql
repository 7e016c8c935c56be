-- Housekeeping is leased: one runner at a time, in whatever process.

-- name: plan
-- does: Makes a chore known, due at once, if it is not known yet.
-- system
insert into chores (name, due_at) values (:name, :now)
on conflict (name) do nothing;

-- name: lease
-- does: Takes a chore that is due and that nobody holds; times further ahead than can be are a clock's that was set back.
-- system
update chores set owner = :owner, lease_until = :lease_until
where name = :name and (due_at <= :now or due_at > :horizon) and (lease_until <= :now or lease_until > :lease_until);

-- name: finish
-- does: Gives a chore back, says how it went and when it is due again; only its holder may.
-- system
update chores set owner = null, lease_until = 0, ran_at = :now, due_at = :due_at, outcome = :outcome
where name = :name and owner = :owner;

-- name: all
-- does: Every chore: when it last ran, when it is due, how it went.
-- system
select name, owner, lease_until, due_at, ran_at, outcome from chores order by name;
