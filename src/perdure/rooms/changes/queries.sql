-- Every change leaves one entry here: the audit trail and the change feed are one table.

-- name: note
-- does: Writes one entry at the tenant's next position: who did what to which object, when and why.
-- only: sqlite
insert into changes (tenant, position, kind, verb, object, parent, actor, reason, at)
values (:tenant, (select coalesce(max(position), 0) + 1 from changes where tenant = :tenant),
  :kind, :verb, :object, :parent, :actor, :reason, :now);

-- name: note
-- does: Writes one entry at the next position: who did what to which object, when and why.
-- only: postgres
insert into changes (tenant, kind, verb, object, parent, actor, reason, at)
values (:tenant, :kind, :verb, :object, :parent, :actor, :reason, :now);

-- name: since
-- does: The feed after a cursor, oldest first; never past an entry that an open transaction may still precede.
select
  position, tx, --if postgres
  position, 0,  --if sqlite
  kind, verb, object, parent, actor, reason, at
from changes
where tenant = :tenant
  and position > :position                                                              --if sqlite
  and (tx, position) > (:tx, :position)                                                 --if postgres
  and tx < cast(cast(pg_snapshot_xmin(pg_current_snapshot()) as text) as bigint)        --if postgres
  and kind in (select value from json_each(:kinds))                                     --if kinds sqlite
  and kind = any(:kinds)                                                                --if kinds postgres
order by position      --if sqlite
order by tx, position  --if postgres
limit :limit;

-- name: latest
-- does: The cursor of the newest entry that the feed may show.
select
  position, tx --if postgres
  position, 0  --if sqlite
from changes
where tenant = :tenant
  and tx < cast(cast(pg_snapshot_xmin(pg_current_snapshot()) as text) as bigint)        --if postgres
order by position desc      --if sqlite
order by tx desc, position desc  --if postgres
limit 1;

-- name: of_object
-- does: The trail of one object, oldest first.
-- scan: entries are found by tenant only; the trail of one object is an administrator's question
select position, kind, verb, object, parent, actor, reason, at
from changes
where tenant = :tenant and object = :object and kind = :kind
order by position
limit :limit;

-- name: forget_object
-- does: Takes the names of an erased object, a conversation's messages too, out of the trail; that, when and who stays.
-- scan: erasing is rare and must find every entry
update changes
set object = :pseudonym,
    parent = case when kind = 'message' and cast(:kind as text) = 'conversation' then :pseudonym else parent end,
    reason = null
where tenant = :tenant
  and ((object = :object and kind = :kind)
    or (parent = :object and kind = 'message' and cast(:kind as text) = 'conversation'));
