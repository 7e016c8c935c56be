-- Checkpoints: threads, branches, what each checkpoint is made of, and its keys.

-- Checkpoints: a state is kept as what changed in it. See docs/architecture.md.
create table checkpoint_threads (
  ord integer primary key autoincrement,
  tenant text not null,
  id text not null,
  space text not null,                    -- '' or the framework (and its namespace) whose checkpoints these are
  version integer not null,               -- grows with each change of the thread: what a process holds of it is checked by this
  domain text not null,                   -- the key domain that its rows are sealed in
  next_position integer not null,         -- checkpoints of a thread are numbered; a number is never used again
  next_log integer not null,              -- log 0 holds what each checkpoint is made of, log 1 single values, others list items
  head integer,                           -- the newest checkpoint of the branch `main`
  in_order integer not null,              -- 0: an id is not greater than all before it
  pruned blob,                            -- sealed: the positions that retention took, and the number of branches
  created_at integer not null,
  updated_at integer not null,
  mac blob not null
) strict;
create unique index checkpoint_threads_by_id on checkpoint_threads (tenant, id, space);

create table checkpoint_branches (
  tenant text not null,
  thread integer not null,
  number integer not null,                -- 0 is `main`, which has no row
  name text not null,
  id text not null,
  head integer not null,
  fork_of integer not null,               -- the position it began at
  metadata text not null,
  created_at integer not null,
  mac blob not null,
  primary key (tenant, thread, number)
) strict, without rowid;
create unique index checkpoint_branches_by_name on checkpoint_branches (tenant, thread, name);

create table checkpoints (
  tenant text not null,
  thread integer not null,
  position integer not null,
  id text not null,
  parent integer,                         -- the position it was made from
  branch integer not null,
  status integer not null,                -- 0 ok, 1 failed, 2 completed
  run_id text,
  size integer not null,                  -- bytes that it added
  created_at integer not null,
  mac blob not null,                      -- over all of it, what it is made of, and its parent's mac
  primary key (tenant, thread, position)
) strict, without rowid;
create unique index checkpoints_by_id on checkpoints (tenant, id, thread);
create index checkpoints_by_run on checkpoints (tenant, run_id) where run_id is not null;

create table checkpoint_tags (
  tenant text not null,
  thread integer not null,
  tag text not null,
  position integer not null,
  primary key (tenant, thread, tag, position)
) strict, without rowid;
create index checkpoint_tags_by_position on checkpoint_tags (tenant, thread, position);

-- The newest items of each log, one by one, until 64 of them are sealed together as a segment.
create table checkpoint_items (
  tenant text not null,
  thread integer not null,
  log integer not null,
  ordinal integer not null,
  payload blob not null,
  primary key (tenant, thread, log, ordinal)
) strict, without rowid;

-- Sealed items. Equal ones are kept once for each tenant and key domain; runs say which logs they are part of.
create table checkpoint_segments (
  ord integer primary key autoincrement,
  tenant text not null,
  domain text not null,
  hash blob not null,                     -- keyed: of what is inside
  payload blob not null
) strict;
create unique index checkpoint_segments_by_hash on checkpoint_segments (tenant, domain, hash);

create table checkpoint_runs (
  tenant text not null,
  thread integer not null,
  log integer not null,
  low integer not null,                   -- items low..high-1 of the log are this segment
  high integer not null,
  segment integer not null,
  mac blob not null,
  primary key (tenant, thread, log, low)
) strict, without rowid;
create index checkpoint_runs_by_segment on checkpoint_runs (tenant, segment);

-- What LangGraph's tasks wrote beside a checkpoint.
create table checkpoint_writes (
  tenant text not null,
  thread integer not null,
  checkpoint text not null,               -- an id; the checkpoint itself may come later
  task_id text not null,
  idx integer not null,
  task_path text not null,
  payload blob not null,                  -- sealed: the channel and its value
  primary key (tenant, thread, checkpoint, task_id, idx)
) strict, without rowid;

-- Data keys, each wrapped by the key that was given.
create table checkpoint_keys (
  tenant text not null,
  domain text not null,
  kek_id text not null,
  salt blob not null,
  params text not null,
  wrapped blob not null,                  -- the domain's data key under that key
  state text not null,                    -- active, retiring
  created_at integer not null,
  primary key (tenant, domain, kek_id)
) strict, without rowid;
