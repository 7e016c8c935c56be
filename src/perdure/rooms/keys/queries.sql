-- What a creating verb answered to an idempotency key, kept for a day.

-- name: answered
-- does: What was answered to a key that has not expired, and to which content.
select digest, answer from idempotency
where tenant = :tenant and verb = :verb and key = :key and expires_at > :now;

-- name: take
-- does: Takes a key for some content; an expired one is overwritten, a living one is left (0 rows touched).
insert into idempotency (tenant, verb, key, digest, answer, expires_at)
values (:tenant, :verb, :key, :digest, '[]', :expires_at)
on conflict (tenant, verb, key) do update
set digest = excluded.digest, answer = excluded.answer, expires_at = excluded.expires_at
where idempotency.expires_at <= :now;

-- name: remember
-- does: Keeps the answer to a key that was taken.
update idempotency set answer = :answer where tenant = :tenant and verb = :verb and key = :key;

-- name: forget
-- does: Keys that created something erased stay used, but no longer tell what it was.
-- scan: erasing is rare and must find every key
update idempotency set digest = '', answer = '[]'
where tenant = :tenant
  and verb in (select value from json_each(:verbs))                                                    --if sqlite
  and exists (select 1 from json_each(answer) a where a.value in (select value from json_each(:ids)))   --if sqlite
  and verb = any(:verbs)                                                                               --if postgres
  and exists (select 1 from json_array_elements_text(cast(answer as json)) a where a = any(:ids))       --if postgres
;

-- name: expire
-- does: Forgets some of the keys that are past their day, oldest first.
delete from idempotency
where tenant = :tenant
  and (verb, key) in (
    select verb, key from idempotency where tenant = :tenant and expires_at <= :now order by expires_at limit :limit);

-- name: next
-- does: When the oldest key is past its day.
select expires_at from idempotency where tenant = :tenant order by expires_at limit 1;
