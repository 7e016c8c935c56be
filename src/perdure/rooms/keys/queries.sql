-- What a creating verb answered to an idempotency key, kept for a day.

-- name: answered
-- does: What was answered to a key that has not expired, and to which content.
select digest, answer from idempotency
where tenant = :tenant and verb = :verb and key = :key and expires_at > :now;

-- name: remember
-- does: Keeps the answer to a key; an expired one is overwritten, a living one is left (0 rows touched).
insert into idempotency (tenant, verb, key, digest, answer, expires_at)
values (:tenant, :verb, :key, :digest, :answer, :expires_at)
on conflict (tenant, verb, key) do update
set digest = excluded.digest, answer = excluded.answer, expires_at = excluded.expires_at
where idempotency.expires_at <= :now;

-- name: expire
-- does: Forgets the keys that are past their day.
delete from idempotency where tenant = :tenant and expires_at <= :now;
