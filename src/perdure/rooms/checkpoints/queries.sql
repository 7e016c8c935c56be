-- Checkpoints: threads with their branches and tags, and the logs that states are kept in.

-- macro: thread
t.ord, t.id, t.space, t.version, t.domain, t.next_position, t.next_log, t.head, t.in_order, t.pruned, t.created_at, t.updated_at, t.mac

-- macro: checkpoint
select c.thread, c.position, c.id, c.parent, c.branch, c.status, c.run_id, c.size, c.created_at, c.mac, p.id, p.mac
from checkpoints c
left join checkpoints p on p.tenant = :tenant and p.thread = c.thread and p.position = c.parent

-- name: thread
-- does: One thread; with `locked`, nobody else changes it before this transaction ends.
select {thread}
from checkpoint_threads t
where t.tenant = :tenant and t.id = :id and t.space = :space
for update --if locked postgres
;

-- name: thread_by_ord
-- does: One thread by its number; with `locked`, nobody else changes it before this transaction ends.
select {thread}
from checkpoint_threads t
where t.tenant = :tenant and t.ord = :thread
for update --if locked postgres
;

-- name: add_thread
-- does: A new thread; 0 rows touched when it is there.
insert into checkpoint_threads
  (tenant, id, space, version, domain, next_position, next_log, in_order, created_at, updated_at, mac)
values
  (:tenant, :id, :space, 0, :domain, 0, 2, 1, :now, :now, :mac)
on conflict (tenant, id, space) do nothing;

-- name: threads
-- does: Threads by id, from a cursor on; of every space, or of those whose name begins with `space`.
select {thread}
from checkpoint_threads t
where t.tenant = :tenant
  and t.id = :id                                              --if one
  and (t.id, t.space) > (:after_id, :after_space)             --if cursor
  and t.space = :space                                        --if space
order by t.id, t.space
limit :limit;

-- name: threads_of
-- does: Threads whose spaces begin with a framework's name, by id and space, from a cursor on.
select {thread}
from checkpoint_threads t
where t.tenant = :tenant and t.space >= :family and t.space < :beyond
  and t.id = :id                                              --if one
  and (t.id, t.space) > (:after_id, :after_space)             --if cursor
order by t.id, t.space
limit :limit;

-- name: change_thread
-- does: What a change of a thread leaves in its row.
update checkpoint_threads
set version = version + 1, domain = :domain, next_position = :next_position, next_log = :next_log, head = :head,
    in_order = :in_order, pruned = :pruned, updated_at = :now, mac = :mac
where tenant = :tenant and ord = :thread and version = :version;

-- name: rename_thread
-- does: Another name for a thread.
update checkpoint_threads set id = :id, space = :space, version = version + 1
where tenant = :tenant and ord = :thread;

-- name: remove_thread
-- does: Deletes a thread's row.
delete from checkpoint_threads where tenant = :tenant and ord = :thread;

-- name: branches
-- does: The branches of a thread but `main`, by number.
select b.number, b.name, b.id, b.head, b.fork_of, b.metadata, b.created_at, b.mac
from checkpoint_branches b
where b.tenant = :tenant and b.thread = :thread
order by b.number;

-- name: add_branch
-- does: A new branch; 0 rows touched when its name is taken.
insert into checkpoint_branches (tenant, thread, number, name, id, head, fork_of, metadata, created_at, mac)
values (:tenant, :thread, :number, :name, :id, :head, :fork_of, :metadata, :now, :mac)
on conflict (tenant, thread, name) do nothing;

-- name: move_branch
-- does: A branch's new head, and where it begins now.
update checkpoint_branches set head = :head, fork_of = :fork_of, mac = :mac
where tenant = :tenant and thread = :thread and number = :number;

-- name: remove_branches
-- does: Deletes the branches of a thread.
delete from checkpoint_branches where tenant = :tenant and thread = :thread;

-- name: add
-- does: A checkpoint.
insert into checkpoints (tenant, thread, position, id, parent, branch, status, run_id, size, created_at, mac)
values (:tenant, :thread, :position, :id, :parent, :branch, :status, :run_id, :size, :now, :mac);

-- name: by_id
-- does: The checkpoints with an id; ids of a framework are its own only within a thread.
{checkpoint}
where c.tenant = :tenant and c.id = :id
  and c.thread = :thread                                                       --if thread
  and :space = (select t.space from checkpoint_threads t                       --if space
    where t.tenant = :tenant and t.ord = c.thread)                             --if space
order by c.thread
limit 1;

-- name: at
-- does: The checkpoint at a position.
{checkpoint}
where c.tenant = :tenant and c.thread = :thread and c.position = :position;

-- name: page
-- does: Checkpoints of a thread, newest first, from a position down.
-- scan: with a branch, a status or a tag the thread is walked until the page is full
{checkpoint}
where c.tenant = :tenant and c.thread = :thread and c.position < :above
  and c.created_at < :before                                                  --if before
  and c.created_at > :after                                                   --if after
  and c.branch = :branch                                                      --if branch
  and c.status <> 1                                                           --if working
  and :tag_count = (select count(*) from checkpoint_tags g                    --if tags
    where g.tenant = :tenant and g.thread = c.thread and g.position = c.position --if tags
    and g.tag in (select value from json_each(:tags)))                        --if tags sqlite
    and g.tag = any(:tags))                                                   --if tags postgres
order by c.position desc
limit :limit;

-- name: newest_of
-- does: Checkpoints of a framework's threads (of one id, of one space), the greatest id first, from a cursor down.
{checkpoint}
join checkpoint_threads t on t.tenant = :tenant and t.ord = c.thread
where c.tenant = :tenant and t.space >= :family and t.space < :beyond
  and t.id = :id                                              --if one
  and t.space = :space                                        --if space
  and c.id < :before                                          --if before
  and (c.id, c.thread) < (:after_id, :after_thread)           --if cursor
order by c.id desc, c.thread desc
limit :limit;

-- name: by_time
-- does: The newest checkpoint of a thread that was made at a time or before; by position, for clocks are set back.
{checkpoint}
where c.tenant = :tenant and c.thread = :thread and c.created_at <= :at
  and c.branch = :branch --if branch
order by c.position desc
limit 1;

-- name: of_run
-- does: The checkpoints that a run made.
select c.thread, c.position, c.id, c.parent, c.branch, c.status, c.run_id, c.size, c.created_at, c.mac, p.id, p.mac
from checkpoints c
indexed by checkpoints_by_run --if sqlite
left join checkpoints p on p.tenant = :tenant and p.thread = c.thread and p.position = c.parent
where c.tenant = :tenant and c.run_id = :run_id
order by c.thread, c.position;

-- name: remove
-- does: Deletes the checkpoint at a position.
delete from checkpoints where tenant = :tenant and thread = :thread and position = :position;

-- name: remove_all
-- does: Deletes the checkpoints of a thread.
delete from checkpoints where tenant = :tenant and thread = :thread;

-- name: tag
-- does: Puts a tag on a checkpoint.
insert into checkpoint_tags (tenant, thread, tag, position)
values (:tenant, :thread, :tag, :position)
on conflict do nothing;

-- name: untag
-- does: Takes a tag off a checkpoint.
delete from checkpoint_tags
where tenant = :tenant and thread = :thread and tag = :tag and position = :position;

-- name: tags
-- does: The tags of the checkpoints of a thread between two positions.
select g.position, g.tag
from checkpoint_tags g
where g.tenant = :tenant and g.thread = :thread and g.position >= :low and g.position <= :high
order by g.position, g.tag;

-- name: remove_tags
-- does: Deletes the tags of the checkpoint at a position.
delete from checkpoint_tags where tenant = :tenant and thread = :thread and position = :position;

-- name: remove_all_tags
-- does: Deletes the tags of a thread.
delete from checkpoint_tags where tenant = :tenant and thread = :thread;

-- name: put_item
-- does: An item of a log.
insert into checkpoint_items (tenant, thread, log, ordinal, payload)
values (:tenant, :thread, :log, :ordinal, :payload);

-- name: items
-- does: The items of a log that are not in a segment yet, in order, between two ordinals.
select i.ordinal, i.payload
from checkpoint_items i
where i.tenant = :tenant and i.thread = :thread and i.log = :log and i.ordinal >= :low and i.ordinal < :high
order by i.ordinal;

-- name: single_items
-- does: Some items of a log that are not in a segment yet.
select i.ordinal, i.payload
from checkpoint_items i
where i.tenant = :tenant and i.thread = :thread and i.log = :log
  and i.ordinal in (select value from json_each(:ordinals)) --if sqlite
  and i.ordinal = any(:ordinals)                            --if postgres
order by i.ordinal;

-- name: segments
-- does: The segments of a log that hold items between two ordinals, in order.
select r.low, r.high, s.hash, s.payload, r.mac
from checkpoint_runs r
join checkpoint_segments s on s.ord = r.segment and s.tenant = :tenant
where r.tenant = :tenant and r.thread = :thread and r.log = :log and r.low < :high
  and r.low >= coalesce((select max(f.low) from checkpoint_runs f
    where f.tenant = :tenant and f.thread = :thread and f.log = :log and f.low <= :low), 0)
order by r.low;

-- name: single_segments
-- does: The segments of a log that hold some items.
select r.low, r.high, s.hash, s.payload, r.mac
from checkpoint_runs r
join checkpoint_segments s on s.ord = r.segment and s.tenant = :tenant
where r.tenant = :tenant and r.thread = :thread and r.log = :log
  and r.low in (select (select max(f.low) from checkpoint_runs f                                      --if sqlite
      where f.tenant = :tenant and f.thread = :thread and f.log = :log and f.low <= o.value)          --if sqlite
    from json_each(:ordinals) o)                                                                      --if sqlite
  and r.low in (select (select max(f.low) from checkpoint_runs f                                      --if postgres
      where f.tenant = :tenant and f.thread = :thread and f.log = :log and f.low <= o.value)          --if postgres
    from unnest(cast(:ordinals as bigint[])) o (value))                                               --if postgres
order by r.low;

-- name: newest_item
-- does: The last ordinal of a log, in a segment or not.
select max(i.ordinal), (select max(r.high) from checkpoint_runs r
  where r.tenant = :tenant and r.thread = :thread and r.log = :log)
from checkpoint_items i
where i.tenant = :tenant and i.thread = :thread and i.log = :log;

-- name: all_runs
-- does: Every run of a thread, without what is in the segments.
select r.log, r.low, r.high, r.segment
from checkpoint_runs r
where r.tenant = :tenant and r.thread = :thread
order by r.log, r.low;

-- name: all_items
-- does: Every item of a thread that is in no segment, without its content.
select i.log, i.ordinal
from checkpoint_items i
where i.tenant = :tenant and i.thread = :thread
order by i.log, i.ordinal;

-- name: remove_items
-- does: Deletes items of a log between two ordinals.
delete from checkpoint_items
where tenant = :tenant and thread = :thread and log = :log and ordinal >= :low and ordinal < :high;

-- name: remove_all_items
-- does: Deletes the items of a thread that are in no segment.
delete from checkpoint_items where tenant = :tenant and thread = :thread;

-- name: add_segment
-- does: A segment; 0 rows touched when an equal one is there.
insert into checkpoint_segments (tenant, domain, hash, payload)
values (:tenant, :domain, :hash, :payload)
on conflict (tenant, domain, hash) do nothing;

-- name: segment
-- does: The number of the segment with a hash.
select s.ord
from checkpoint_segments s
where s.tenant = :tenant and s.domain = :domain and s.hash = :hash
for update --if postgres
;

-- name: add_run
-- does: Says that items of a log are in a segment.
insert into checkpoint_runs (tenant, thread, log, low, high, segment, mac)
values (:tenant, :thread, :log, :low, :high, :segment, :mac);

-- name: remove_run
-- does: Deletes one run.
delete from checkpoint_runs where tenant = :tenant and thread = :thread and log = :log and low = :low;

-- name: remove_all_runs
-- does: Deletes the runs of a thread.
delete from checkpoint_runs where tenant = :tenant and thread = :thread;

-- name: lock_segments
-- does: Some segments, which nobody begins to share before this transaction ends.
select s.ord
from checkpoint_segments s
not indexed --if sqlite
where s.tenant = :tenant
  and s.ord in (select value from json_each(:segments)) --if sqlite
  and s.ord = any(:segments)                            --if postgres
order by s.ord
for update --if postgres
;

-- name: reclaim
-- does: Deletes those of some segments that no run refers to any more.
delete from checkpoint_segments
not indexed --if sqlite
where tenant = :tenant
  and ord in (select value from json_each(:segments))                                   --if sqlite
  and ord = any(:segments)                                                              --if postgres
  and not exists (select 1 from checkpoint_runs r
    where r.tenant = :tenant and r.segment = checkpoint_segments.ord);

-- name: put_write
-- does: What a task wrote beside a checkpoint; written again it replaces (`replace`) or is left alone.
insert into checkpoint_writes (tenant, thread, checkpoint, task_id, idx, task_path, payload)
values (:tenant, :thread, :checkpoint, :task_id, :idx, :task_path, :payload)
on conflict (tenant, thread, checkpoint, task_id, idx)
do nothing                                                                                --if keep
do update set task_path = excluded.task_path, payload = excluded.payload                  --if replace
;

-- name: writes
-- does: What tasks wrote beside some checkpoints, in no order that matters.
select w.checkpoint, w.task_id, w.idx, w.task_path, w.payload
from checkpoint_writes w
where w.tenant = :tenant and w.thread = :thread
  and w.checkpoint in (select value from json_each(:checkpoints)) --if sqlite
  and w.checkpoint = any(:checkpoints)                            --if postgres
order by w.checkpoint, w.task_path, w.task_id, w.idx;

-- name: all_writes
-- does: What tasks wrote in a thread.
select w.checkpoint, w.task_id, w.idx, w.task_path, w.payload
from checkpoint_writes w
where w.tenant = :tenant and w.thread = :thread
order by w.checkpoint, w.task_id, w.idx;

-- name: remove_writes
-- does: Deletes what tasks wrote beside a checkpoint.
delete from checkpoint_writes where tenant = :tenant and thread = :thread and checkpoint = :checkpoint;

-- name: remove_all_writes
-- does: Deletes what tasks wrote in a thread.
delete from checkpoint_writes where tenant = :tenant and thread = :thread;

-- name: keys
-- does: The data keys of the tenant, each as often as it is wrapped.
select k.domain, k.kek_id, k.salt, k.params, k.wrapped, k.state, k.created_at
from checkpoint_keys k
where k.tenant = :tenant
order by k.created_at, k.domain, k.kek_id;

-- name: lock_keys
-- does: Lets one at a time change the tenant's keys, until this transaction ends.
select 1
where :tenant <> ''
  and pg_advisory_xact_lock(hashtextextended('perdure keys ' || cast(:tenant as text), 0)) is not null --if postgres
;

-- name: active_key
-- does: Whether new rows may be sealed in a domain; it stays so until this transaction ends.
select k.domain
from checkpoint_keys k
where k.tenant = :tenant and k.domain = :domain and k.state = 'active'
limit 1
for share --if postgres
;

-- name: add_key
-- does: A data key, wrapped; 0 rows touched when it is there.
insert into checkpoint_keys (tenant, domain, kek_id, salt, params, wrapped, state, created_at)
values (:tenant, :domain, :kek_id, :salt, :params, :wrapped, :state, :now)
on conflict do nothing;

-- name: change_key_state
-- does: Whether a data key is the one that new threads are sealed with.
update checkpoint_keys set state = :state where tenant = :tenant and domain = :domain;

-- name: remove_key
-- does: Forgets one wrapping of a data key.
delete from checkpoint_keys where tenant = :tenant and domain = :domain and kek_id = :kek_id;

-- name: threads_in_domain
-- does: Threads that are sealed in another domain than this one.
select {thread}
from checkpoint_threads t
where t.tenant = :tenant and t.domain <> :domain
order by t.ord
limit :limit;

-- name: parents
-- does: What each checkpoint of a thread between two positions was made from, and its branch.
select c.position, c.parent, c.branch
from checkpoints c
where c.tenant = :tenant and c.thread = :thread and c.position >= :low and c.position <= :high
order by c.position;
