-- The text index over messages: an inverted index of our own, so that both engines find and rank the same.
-- `+tenant` keeps SQLite from walking an index of the tenant where the rows' numbers are given.

-- name: hold
-- does: The feed's cursor that the index has absorbed; held, so that one absorbs or removes at a time.
select tx, position from text_progress
where tenant = :tenant
for update --if postgres
;

-- name: start
-- does: Begins to index a tenant.
insert into text_progress (tenant, tx, position) values (:tenant, 0, 0)
on conflict (tenant) do nothing;

-- name: progress
-- does: Where the index is, without holding it.
select tx, position from text_progress where tenant = :tenant;

-- name: advance
-- does: The index has absorbed the feed up to this cursor.
update text_progress set tx = :tx, position = :position where tenant = :tenant;

-- name: news
-- does: Messages added or edited after a cursor, in the feed's order, living or not; the third column is always 1.
-- only: sqlite
select c.position, 0, 1, m.ord, m.version, m.state, m.body, m.form, c2.user_id, m.conversation
from changes c
left join messages m on m.tenant = c.tenant and m.id = c.object and c.kind = 'message'
left join conversations c2 on c2.ord = m.conversation
where c.tenant = :tenant and c.position > :position
order by c.position
limit :limit;

-- name: news
-- does: Messages added or edited after a cursor; the third column: no open transaction can precede it.
-- only: postgres
select c.position, c.tx,
  case when c.tx < cast(cast(pg_snapshot_xmin(pg_current_snapshot()) as text) as bigint) then 1 else 0 end,
  m.ord, m.version, m.state, m.body, m.form, c2.user_id, m.conversation
from changes c
left join messages m on m.tenant = c.tenant and m.id = c.object and c.kind = 'message'
left join conversations c2 on c2.tenant = m.tenant and c2.ord = m.conversation
where c.tenant = :tenant and (c.tx, c.position) > (:tx, :position)
order by c.tx, c.position
limit :limit;

-- name: documents
-- does: What the index holds of some documents.
select doc, scope, version, length, terms from text_documents
where +tenant = :tenant  --if sqlite
where tenant = :tenant   --if postgres
  and doc in (select value from json_each(:docs)) --if sqlite
  and doc = any(:docs)                            --if postgres
order by doc;

-- name: scopes
-- does: The scopes of some users.
select user_id, scope from text_scopes
where tenant = :tenant
  and user_id in (select value from json_each(:users)) --if sqlite
  and user_id = any(:users)                            --if postgres
;

-- name: add_scope
-- does: A scope for a user who has none yet.
insert into text_scopes (tenant, user_id) values (:tenant, :user_id)
on conflict (tenant, user_id) do nothing;

-- name: add_document
-- does: A document's length and terms.
insert into text_documents (doc, tenant, scope, conversation, version, length, terms)
values (:doc, :tenant, :scope, :conversation, :version, :length, :terms);

-- name: drop_documents
-- does: Removes documents.
delete from text_documents
where +tenant = :tenant  --if sqlite
where tenant = :tenant   --if postgres
  and doc in (select value from json_each(:docs)) --if sqlite
  and doc = any(:docs)                            --if postgres
;

-- name: add_posting
-- does: A term is in a document.
insert into text_postings (tenant, term, scope, doc)
values (:tenant, :term, :scope, :doc);

-- name: drop_posting
-- does: A term is no longer in a document.
delete from text_postings where tenant = :tenant and term = :term and scope = :scope and doc = :doc;

-- name: count_terms
-- does: Adds to the number of documents of many terms, given as JSON rows of scope, term and number.
-- only: sqlite
insert into text_terms (tenant, scope, term, documents)
select :tenant, r.value ->> 0, r.value ->> 1, r.value ->> 2 from json_each(cast(:counts as text)) r where true
on conflict (tenant, scope, term) do update set documents = text_terms.documents + excluded.documents;

-- name: count_terms
-- does: Adds to the number of documents of many terms, given as JSON rows of scope, term and number.
-- only: postgres
insert into text_terms (tenant, scope, term, documents)
select :tenant, cast(r ->> 0 as bigint), r ->> 1, cast(r ->> 2 as bigint)
from json_array_elements(cast(:counts as json)) r
on conflict (tenant, scope, term) do update set documents = text_terms.documents + excluded.documents;

-- name: drop_empty_terms
-- does: Forgets terms that are in no document any longer, so that an erased word leaves no trace.
-- only: sqlite
delete from text_terms
where tenant = :tenant and documents = 0
  and (scope, term) in (select r.value ->> 0, r.value ->> 1 from json_each(cast(:counts as text)) r);

-- name: drop_empty_terms
-- does: Forgets terms that are in no document any longer, so that an erased word leaves no trace.
-- only: postgres
with r as materialized (
  select cast(e ->> 0 as bigint) as scope, e ->> 1 as term from json_array_elements(cast(:counts as json)) e)
delete from text_terms t using r
where t.tenant = :tenant and t.scope = r.scope and t.term = r.term and t.documents = 0;

-- name: count_documents
-- does: Adds to a scope's number and length of documents.
insert into text_totals (tenant, scope, documents, length)
values (:tenant, :scope, :documents, :length)
on conflict (tenant, scope) do update
set documents = text_totals.documents + excluded.documents, length = text_totals.length + excluded.length;

-- name: totals
-- does: How many documents a scope has and how long they are together.
select documents, length from text_totals where tenant = :tenant and scope = :scope;

-- name: frequencies
-- does: In how many of a scope's documents some terms are.
select term, documents from text_terms
where tenant = :tenant and scope = :scope
  and term in (select value from json_each(:terms)) --if sqlite
  and term = any(:terms)                            --if postgres
;

-- name: holding
-- does: The newest documents that hold a term, of one user or of all.
select p.doc from text_postings p
where p.tenant = :tenant and p.term = :term
  and p.scope = :scope   --if scope
order by p.doc desc
limit :limit;

-- name: holding_in_conversation
-- does: The documents between two seqs of a conversation's own rows that hold any of some terms.
-- scan: looks at each document of the conversation
select d.doc from text_documents d join messages m on m.tenant = d.tenant and m.ord = d.doc
where d.tenant = :tenant and d.conversation = :conversation and m.seq >= :low and m.seq <= :high
  and exists (select 1 from text_postings p where p.tenant = :tenant and p.scope = d.scope and p.doc = d.doc
    and p.term in (select value from json_each(:terms)))  --if sqlite
    and p.term = any(:terms))                             --if postgres
order by d.doc desc
limit :limit;

-- name: found
-- does: The messages of some documents with their conversations' ids; deleted ones are not among them.
select m.ord, m.conversation, m.seq, m.id, m.role, m.name, m.body, m.form, m.metadata, m.input_tokens, m.output_tokens,
  m.total_tokens, m.model, m.cost, m.parent_id, m.created_at, m.version, c.id, c.live
from messages m join conversations c on c.tenant = m.tenant and c.ord = m.conversation
where +m.tenant = :tenant and m.state = 0  --if sqlite
where m.tenant = :tenant and m.state = 0   --if postgres
  and m.ord in (select value from json_each(:docs)) --if sqlite
  and m.ord = any(:docs)                            --if postgres
order by m.ord;

-- name: first_by_id
-- does: Of some documents the living messages with the lowest ids, to choose among equals.
select ord from messages
where +tenant = :tenant and state = 0  --if sqlite
where tenant = :tenant and state = 0   --if postgres
  and ord in (select value from json_each(:docs)) --if sqlite
  and ord = any(:docs)                            --if postgres
order by id
limit :limit;

-- name: reader_of
-- does: A conversation that reads a deleted conversation's message at a seq, the oldest of them.
select c.id from forks f join conversations c on c.tenant = f.tenant and c.ord = f.conversation
where f.tenant = :tenant and f.source = :conversation and f.low_seq <= :seq and f.high_seq >= :seq and c.live = 1
order by c.ord
limit 1;

-- name: conversation
-- does: The row number of a conversation, the seqs it inherits, the next one it gives out, and its user.
select ord, inherits, next_seq, user_id from conversations where tenant = :tenant and id = :id and live = 1;

-- name: segments
-- does: From whose rows a fork reads which seqs.
select source, low_seq, high_seq from forks where tenant = :tenant and conversation = :conversation order by low_seq;

-- name: clear_documents
-- does: Empties the index of a tenant (it is rebuilt from the feed).
-- scan: all of it
delete from text_documents where tenant = :tenant;

-- name: clear_postings
-- does: Empties the index of a tenant.
-- scan: all of it
delete from text_postings where tenant = :tenant;

-- name: clear_terms
-- does: Empties the index of a tenant.
-- scan: all of it
delete from text_terms where tenant = :tenant;

-- name: clear_totals
-- does: Empties the index of a tenant.
-- scan: all of it
delete from text_totals where tenant = :tenant;
