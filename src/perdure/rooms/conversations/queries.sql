-- Conversations, their messages, labels, forks and token totals. `+tenant` keeps SQLite from walking an index of the
-- tenant where the rows' numbers are given.

-- macro: conversation
c.ord, c.id, c.agent_id, c.user_id, c.metadata, c.created_at, c.updated_at, c.active_at, c.next_seq, c.message_count,
c.input_tokens, c.output_tokens, c.total_tokens, c.cost, c.version, c.inherits

-- macro: message
m.ord, m.conversation, m.seq, m.id, m.role, m.name, m.body, m.form, m.metadata, m.input_tokens, m.output_tokens,
m.total_tokens, m.model, m.cost, m.parent_id, m.created_at, m.version

-- name: create
-- does: A new conversation; 0 rows touched when the id is taken.
insert into conversations
  (tenant, id, agent_id, user_id, title, metadata, created_at, updated_at, active_at, next_seq, message_count,
   input_tokens, output_tokens, total_tokens, cost, inherits)
values
  (:tenant, :id, :agent_id, :user_id, :title, :metadata, :created_at, :now, :active_at, :next_seq, :message_count,
   :input_tokens, :output_tokens, :total_tokens, :cost, :inherits)
on conflict (tenant, id) do nothing;

-- name: label
-- does: A tag or a participant of a conversation.
insert into conversation_labels (tenant, kind, label, conversation)
values (:tenant, :kind, :label, :conversation)
on conflict do nothing;

-- name: unlabel
-- does: Takes all labels off a conversation.
delete from conversation_labels where tenant = :tenant and conversation = :conversation;

-- name: by_id
-- does: One conversation; with `locked`, nobody else changes it before this transaction ends.
select {conversation}
from conversations c
where c.tenant = :tenant and c.id = :id and c.live = 1
for update --if locked postgres
;

-- name: page
-- does: Conversations that fit, in one of the orders, from a cursor on.
-- scan: sorting by count or cost, and filters on context, look at the conversations of the user, agent or tenant
select {conversation}
from conversations c
where c.tenant = :tenant and c.live = 1
  and c.user_id = :user_id                    --if user_id
  and c.agent_id = :agent_id                  --if agent_id
  and c.created_at >= :created_after          --if created_after
  and c.created_at < :created_before          --if created_before
  and c.message_count >= :min_messages        --if min_messages
  and c.message_count <= :max_messages        --if max_messages
  and (replace(c.title, cast(:title_contains as text), '') <> c.title     --if title_contains
    or (cast(:title_contains as text) = '' and c.title is not null))      --if title_contains
  and exists (select 1 from conversation_labels l                         --if participant
    where l.tenant = :tenant and l.kind = 'participant' and l.label = :participant and l.conversation = c.ord) --if participant
  and exists (select 1 from conversation_labels l                         --if any_tags
    where l.tenant = :tenant and l.kind = 'tag' and l.conversation = c.ord --if any_tags
    and l.label in (select value from json_each(:any_tags)))              --if any_tags sqlite
    and l.label = any(:any_tags))                                         --if any_tags postgres
  and :tag_count = (select count(*) from conversation_labels l            --if tags
    where l.tenant = :tenant and l.kind = 'tag' and l.conversation = c.ord --if tags
    and l.label in (select value from json_each(:tags)))                  --if tags sqlite
    and l.label = any(:tags))                                             --if tags postgres
  and {where}                                                             --if where
  and (c.active_at, c.id) < (:key, :after_id)       --if last_message_at descending cursor
  and (c.active_at, c.id) > (:key, :after_id)       --if last_message_at ascending cursor
  and (c.created_at, c.id) < (:key, :after_id)      --if created_at descending cursor
  and (c.created_at, c.id) > (:key, :after_id)      --if created_at ascending cursor
  and (c.message_count, c.id) < (:key, :after_id)   --if message_count descending cursor
  and (c.message_count, c.id) > (:key, :after_id)   --if message_count ascending cursor
  and (c.cost, c.id) < (:key, :after_id)            --if cost descending cursor
  and (c.cost, c.id) > (:key, :after_id)            --if cost ascending cursor
order by c.active_at desc, c.id desc                --if last_message_at descending
order by c.active_at, c.id                          --if last_message_at ascending
order by c.created_at desc, c.id desc               --if created_at descending
order by c.created_at, c.id                         --if created_at ascending
order by c.message_count desc, c.id desc            --if message_count descending
order by c.message_count, c.id                      --if message_count ascending
order by c.cost desc, c.id desc                     --if cost descending
order by c.cost, c.id                               --if cost ascending
limit :limit;

-- name: update
-- does: New metadata, if the version is still the one that was read.
update conversations
set metadata = :metadata, title = :title, updated_at = :now, version = version + 1
where tenant = :tenant and ord = :conversation and version = :version;

-- name: take_seqs
-- does: Gives out the next seqs of a conversation and adds the new messages to its totals.
update conversations
set next_seq = next_seq + :count,
    message_count = message_count + :count,
    input_tokens = input_tokens + :input_tokens,
    output_tokens = output_tokens + :output_tokens,
    total_tokens = total_tokens + :total_tokens,
    cost = cost + :cost,
    active_at = case when next_seq = 1 or active_at < :latest then :latest else active_at end,
    updated_at = :now
where tenant = :tenant and id = :id and live = 1
returning ord, next_seq - :count, user_id, agent_id;

-- name: add_totals
-- does: Corrects the totals of a conversation and of every fork that shares the message at a seq.
update conversations
set message_count = message_count + :messages,
    input_tokens = input_tokens + :input_tokens,
    output_tokens = output_tokens + :output_tokens,
    total_tokens = total_tokens + :total_tokens,
    cost = cost + :cost,
    updated_at = :now
where tenant = :tenant and ord in (   --if postgres
where +tenant = :tenant and ord in (  --if sqlite
  select k.ord from conversations k
  where k.tenant = :tenant and k.ord in (   --if postgres
  where +k.tenant = :tenant and k.ord in (  --if sqlite
    select cast(:conversation as bigint)
    union all
    select f.conversation from forks f
    where f.tenant = :tenant and f.source = :conversation and f.low_seq <= :seq and f.high_seq >= :seq)
  order by k.ord for update --if postgres
);

-- name: add_to_report
-- does: Adds to (or takes from) one day's tokens of a user, an agent and a model.
insert into token_totals
  (tenant, user_id, agent_id, model, day, messages, input_tokens, output_tokens, total_tokens, cost)
values
  (:tenant, :user_id, :agent_id, :model, :day, :messages, :input_tokens, :output_tokens, :total_tokens, :cost)
on conflict (tenant, user_id, agent_id, model, day) do update
set messages = token_totals.messages + excluded.messages,
    input_tokens = token_totals.input_tokens + excluded.input_tokens,
    output_tokens = token_totals.output_tokens + excluded.output_tokens,
    total_tokens = token_totals.total_tokens + excluded.total_tokens,
    cost = token_totals.cost + excluded.cost;

-- name: drop_empty_totals
-- does: Forgets the days of a user and an agent on which nothing that is stored was spent.
delete from token_totals
where tenant = :tenant and user_id = :user_id and agent_id = :agent_id and messages = 0;

-- name: report
-- does: Tokens and cost, added up by any of user, agent, model and day.
-- scan: adds up the rows of its filters; there is one a day for each user, agent and model
select
  user_id,  --if by_user
  null,     --if no_user
  agent_id, --if by_agent
  null,     --if no_agent
  model,    --if by_model
  null,     --if no_model
  day,      --if by_day
  null,     --if no_day
  cast(sum(messages) as bigint), cast(sum(input_tokens) as bigint), cast(sum(output_tokens) as bigint),
  cast(sum(total_tokens) as bigint), cast(sum(cost) as bigint)
from token_totals
where tenant = :tenant
  and user_id = :user_id     --if user_id
  and agent_id = :agent_id   --if agent_id
  and model = :model         --if model
  and day >= :since          --if since
  and day < :until           --if until
group by tenant
  , user_id   --if by_user
  , agent_id  --if by_agent
  , model     --if by_model
  , day       --if by_day
having sum(messages) > 0
order by tenant
  , user_id   --if by_user
  , agent_id  --if by_agent
  , model     --if by_model
  , day       --if by_day
;

-- name: add_message
-- does: One message at the seq that was taken for it.
insert into messages (tenant, conversation, seq, id, role, name, body, form, metadata, input_tokens, output_tokens, total_tokens, model, cost, parent_id, created_at)
values (:tenant, :conversation, :seq, :id, :role, :name, :body, :form, :metadata, :input_tokens, :output_tokens, :total_tokens, :model, :cost, :parent_id, :created_at);

-- name: messages
-- does: The living messages of one conversation's own rows between two seqs, oldest first (newest first when asked).
select {message}
from messages m
where m.tenant = :tenant and m.conversation = :conversation and m.state = 0
  and m.seq >= :low and m.seq <= :high
  and m.role in (select value from json_each(:roles))    --if roles sqlite
  and m.role = any(:roles)                               --if roles postgres
order by m.seq       --if ascending
order by m.seq desc  --if descending
limit :limit;

-- name: message
-- does: One message by its id; with `locked`, nobody else changes it before this transaction ends.
-- Its conversation is held too, and first: a fork that is made meanwhile must not miss the change.
select {message}, c.id, c.user_id, c.agent_id, c.live
from conversations c join messages m on m.tenant = c.tenant and m.conversation = c.ord
where m.tenant = :tenant and m.id = :id and m.state = 0
for update --if locked postgres
;

-- name: said
-- does: What the messages of a conversation's own rows between two seqs say, and what edited or deleted ones said.
-- scan: a flush compares a history with the whole conversation
select m.seq, m.id, 1, m.role, m.name, m.body, m.form
from messages m
where m.tenant = :tenant and m.conversation = :conversation and m.state = 0 and m.seq >= :low and m.seq <= :high
union all
select m.seq, m.id, 0, v.role, v.name, v.body, v.form
from messages m join message_versions v on v.tenant = m.tenant and v.message = m.ord
where m.tenant = :tenant and m.conversation = :conversation and m.state < 2 and m.seq >= :low and m.seq <= :high
order by 1, 3 desc;

-- name: keep_version
-- does: Puts what a message says now into its trail.
insert into message_versions
  (tenant, message, version, role, name, body, form, metadata, input_tokens, output_tokens, total_tokens, model, cost,
   verb, actor, at)
select m.tenant, m.ord, m.version, m.role, m.name, m.body, m.form, m.metadata, m.input_tokens, m.output_tokens,
  m.total_tokens, m.model, m.cost, :verb, cast(:actor as text), cast(:now as bigint)
from messages m
where m.tenant = :tenant and m.ord = :ord;

-- name: rewrite
-- does: What an edited message says from now on.
update messages
set name = :name, body = :body, form = :form, metadata = :metadata, input_tokens = :input_tokens,
    output_tokens = :output_tokens, total_tokens = :total_tokens, model = :model, cost = :cost, version = version + 1
where tenant = :tenant and ord = :ord;

-- name: blank
-- does: Leaves only the place of a deleted (1) or erased (2) message, so that its seq is not given out again.
update messages
set state = :state, id = :id, name = null, body = '', form = 0, metadata = null, input_tokens = null,
    output_tokens = null, total_tokens = null, model = null, cost = null, parent_id = null, version = version + 1
where tenant = :tenant and ord = :ord;

-- name: forget_parent
-- does: Takes an erased message's id out of the messages that answered it, in its conversation and in forks.
-- scan: erasing is linear in the conversations that show the message
update messages set parent_id = null
where tenant = :tenant and parent_id = :id
  and (conversation = :conversation or conversation in (
    select f.conversation from forks f where f.tenant = :tenant and f.source = :conversation));

-- name: history
-- does: The trail of a message, oldest version first; the message may be deleted.
select v.version, v.role, v.name, v.body, v.form, v.metadata, v.input_tokens, v.output_tokens, v.total_tokens, v.model,
  v.cost, v.verb, v.actor, v.at
from message_versions v join messages m on m.tenant = v.tenant and m.ord = v.message
where m.tenant = :tenant and m.id = :id and m.state < 2
order by v.version;

-- name: any_message
-- does: The row number, place and state of a message, deleted ones included.
select m.ord, m.conversation, m.seq, m.state, c.id, c.live
from conversations c join messages m on m.tenant = c.tenant and m.conversation = c.ord
where m.tenant = :tenant and m.id = :id and m.state < 2
for update --if postgres
;

-- name: forget_versions
-- does: Removes the trail of a message.
delete from message_versions where tenant = :tenant and message = :ord;

-- name: segments
-- does: From whose rows a fork reads which seqs, lowest first.
select source, low_seq, high_seq from forks
where tenant = :tenant and conversation = :conversation
order by low_seq;

-- name: add_segment
-- does: Lets a fork read seqs from another conversation's rows.
insert into forks (tenant, conversation, low_seq, high_seq, source)
values (:tenant, :conversation, :low_seq, :high_seq, :source);

-- name: shared_up_to
-- does: The highest seq of a conversation's rows that a fork reads, null when no fork does.
select max(high_seq) from forks where tenant = :tenant and source = :conversation;

-- name: forks_of
-- does: Which conversations read a conversation's rows, and which seqs.
select conversation, low_seq, high_seq from forks
where tenant = :tenant and source = :conversation
order by conversation, low_seq;

-- name: correct_fork
-- does: Corrects the totals of one fork.
update conversations
set message_count = message_count + :messages,
    input_tokens = input_tokens + :input_tokens,
    output_tokens = output_tokens + :output_tokens,
    total_tokens = total_tokens + :total_tokens,
    cost = cost + :cost,
    updated_at = :now
where tenant = :tenant and ord = :conversation;

-- name: segment_sums
-- does: Messages, tokens and cost of a run of seqs, for a fork's totals.
-- scan: adds up the messages that the fork inherits
select count(*), cast(coalesce(sum(input_tokens), 0) as bigint), cast(coalesce(sum(output_tokens), 0) as bigint),
  cast(coalesce(sum(total_tokens), 0) as bigint), cast(coalesce(sum(cost), 0) as bigint), max(created_at)
from messages
where tenant = :tenant and conversation = :conversation and state = 0 and seq >= :low and seq <= :high;

-- name: spent
-- does: What the messages above a seq added to the token report, by model and day.
-- scan: deleting a conversation is linear in its messages
select model, created_at / 86400000000, count(*), cast(sum(input_tokens) as bigint), cast(sum(output_tokens) as bigint),
  cast(sum(total_tokens) as bigint), cast(sum(cost) as bigint)
from messages
where tenant = :tenant and conversation = :conversation and state = 0 and seq > :above and total_tokens is not null
group by model, created_at / 86400000000
order by model, created_at / 86400000000;

-- name: rows_above
-- does: The row numbers of the messages above a seq.
-- scan: deleting a conversation is linear in its messages
select ord from messages where tenant = :tenant and conversation = :conversation and seq > :above order by seq;

-- name: ids_in
-- does: The ids of a conversation's own messages, those that forks share among them.
-- scan: erasing a conversation is linear in its messages
select m.id from messages m join conversations c on c.tenant = m.tenant and c.ord = m.conversation
where c.tenant = :tenant and c.id = :id and c.live = 1;

-- name: drop_above
-- does: Removes the messages above a seq, their trails with them.
delete from messages where tenant = :tenant and conversation = :conversation and seq > :above;

-- name: drop
-- does: Removes a conversation with all that hangs on it.
delete from conversations where tenant = :tenant and ord = :conversation;

-- name: drop_segments
-- does: Forks stop reading a conversation's rows.
delete from forks where tenant = :tenant and source = :conversation;

-- name: retire
-- does: Leaves a deleted conversation's shared messages to its forks and frees its id.
update conversations
set live = 0, id = :id, title = null, metadata = '{}', updated_at = :now
where tenant = :tenant and ord = :conversation;

-- name: hold
-- does: Holds some conversations until this transaction ends, lowest first, so that two holders cannot deadlock.
select ord from conversations
where +tenant = :tenant and ord in (select value from json_each(:conversations))  --if sqlite
where tenant = :tenant and ord = any(:conversations)                              --if postgres
order by ord
for update --if postgres
;

-- name: retired
-- does: The user and agent of a conversation that is deleted but kept for its forks.
select user_id, agent_id from conversations where tenant = :tenant and ord = :conversation and live = 0;

-- name: reader_of
-- does: The oldest conversation that reads a deleted conversation's message at a seq.
select c.id from forks f join conversations c on c.tenant = f.tenant and c.ord = f.conversation
where f.tenant = :tenant and f.source = :conversation and f.low_seq <= :seq and f.high_seq >= :seq and c.live = 1
order by c.ord
limit 1;

-- name: counts
-- does: How many conversations, messages and tokens there are.
-- scan: adds up one row a conversation
select count(*), coalesce(cast(sum(message_count) as bigint), 0), coalesce(cast(sum(total_tokens) as bigint), 0),
  coalesce(cast(sum(cost) as bigint), 0), min(created_at), max(active_at)
from conversations
where tenant = :tenant and live = 1;

-- name: leaving
-- does: Conversations in the order in which they were made, so that a fork follows what it shares, from one on.
-- scan: an export reads every conversation of a tenant, a user or an agent
select {conversation} from conversations c
where +c.tenant = :tenant   --if sqlite
where c.tenant = :tenant    --if postgres
  and c.live = 1 and c.ord > :after and c.ord <= :newest
  and c.user_id = :user_id     --if user_id
  and c.agent_id = :agent_id   --if agent_id
order by c.ord
limit :limit;

-- name: newest
-- does: The row number of the conversation that was made last.
-- scan: once an export
select coalesce(max(ord), 0) from conversations where tenant = :tenant;

-- name: shown_by
-- does: Which older conversation shows most of a source's messages up to a seq, and up to which it does.
select c.id, s.high
from (
  select k.ord as ord, cast(:high as bigint) as high from conversations k
  where +k.tenant = :tenant and k.ord = :source   --if sqlite
  where k.tenant = :tenant and k.ord = :source    --if postgres
  union all
  select f.conversation, case when f.high_seq < :high then f.high_seq else cast(:high as bigint) end from forks f
  where f.tenant = :tenant and f.source = :source and f.conversation < :before) s
join conversations c on c.ord = s.ord
where +c.tenant = :tenant and c.live = 1   --if sqlite
where c.tenant = :tenant and c.live = 1    --if postgres
order by s.high desc, c.ord
limit 1;

-- name: ids_shown
-- does: Which of these message ids exist, and whether a conversation shows (or showed) them.
select m.id, (m.conversation = :conversation or exists (
  select 1 from forks f
  where f.tenant = :tenant and f.conversation = :conversation and f.source = m.conversation
    and f.low_seq <= m.seq and f.high_seq >= m.seq))
from messages m
where m.tenant = :tenant
  and m.id in (select value from json_each(:ids))   --if sqlite
  and m.id = any(:ids)                              --if postgres
;

-- name: broken_totals
-- does: Conversations whose totals are not the sum of their messages, or whose seqs have gaps (for doctor).
-- scan: checks every message
select c.id from conversations c
left join (
  select m.conversation, count(*) as places, max(m.seq) as top, sum(case when m.state = 0 then 1 else 0 end) as living,
    coalesce(sum(m.total_tokens), 0) as tokens, coalesce(sum(m.input_tokens), 0) as taken,
    coalesce(sum(m.output_tokens), 0) as given, coalesce(sum(m.cost), 0) as spent
  from messages m where m.tenant = :tenant group by m.conversation) s on s.conversation = c.ord
where c.tenant = :tenant and c.live = 1 and c.inherits = 0
  and (c.message_count <> coalesce(s.living, 0) or c.total_tokens <> coalesce(s.tokens, 0)
    or c.input_tokens <> coalesce(s.taken, 0) or c.output_tokens <> coalesce(s.given, 0)
    or c.cost <> coalesce(s.spent, 0)
    or c.next_seq - 1 <> coalesce(s.top, 0) or coalesce(s.places, 0) <> coalesce(s.top, 0))
order by c.id
limit 100;
