-- Checkpoints: threads, branches, what each checkpoint is made of, and its keys.

-- Checkpoints: a state is kept as what changed in it. See docs/architecture.md.
create table checkpoint_threads (
  ord bigint generated always as identity primary key,
  tenant text collate "C" not null,
  id text collate "C" not null,
  space text collate "C" not null,                    -- '' or the framework (and its namespace) whose checkpoints these are
  version bigint not null,               -- grows with each change of the thread: what a process holds of it is checked by this
  domain text collate "C" not null,                   -- the key domain that its rows are sealed in
  next_position bigint not null,         -- checkpoints of a thread are numbered; a number is never used again
  next_log bigint not null,              -- log 0 holds what each checkpoint is made of, log 1 single values, others list items
  head bigint,                           -- the newest checkpoint of the branch `main`
  in_order bigint not null,              -- 0: an id is not greater than all before it
  pruned bytea,                            -- sealed: the positions that retention took, and the number of branches
  created_at bigint not null,
  updated_at bigint not null,
  mac bytea not null
);
create unique index checkpoint_threads_by_id on checkpoint_threads (tenant, id, space);

create table checkpoint_branches (
  tenant text collate "C" not null,
  thread bigint not null,
  number bigint not null,                -- 0 is `main`, which has no row
  name text collate "C" not null,
  id text collate "C" not null,
  head bigint not null,
  fork_of bigint not null,               -- the position it began at
  metadata text collate "C" not null,
  created_at bigint not null,
  mac bytea not null,
  primary key (tenant, thread, number)
);
create unique index checkpoint_branches_by_name on checkpoint_branches (tenant, thread, name);

create table checkpoints (
  tenant text collate "C" not null,
  thread bigint not null,
  position bigint not null,
  id text collate "C" not null,
  parent bigint,                         -- the position it was made from
  branch bigint not null,
  status bigint not null,                -- 0 ok, 1 failed, 2 completed
  run_id text collate "C",
  size bigint not null,                  -- bytes that it added
  created_at bigint not null,
  mac bytea not null,                      -- over all of it, what it is made of, and its parent's mac
  primary key (tenant, thread, position)
);
create unique index checkpoints_by_id on checkpoints (tenant, id, thread);
create index checkpoints_by_run on checkpoints (tenant, run_id) where run_id is not null;

create table checkpoint_tags (
  tenant text collate "C" not null,
  thread bigint not null,
  tag text collate "C" not null,
  position bigint not null,
  primary key (tenant, thread, tag, position)
);
create index checkpoint_tags_by_position on checkpoint_tags (tenant, thread, position);

-- The newest items of each log, one by one, until 64 of them are sealed together as a segment.
create table checkpoint_items (
  tenant text collate "C" not null,
  thread bigint not null,
  log bigint not null,
  ordinal bigint not null,
  payload bytea not null,
  primary key (tenant, thread, log, ordinal)
);

-- Sealed items. Equal ones are kept once for each tenant and key domain; runs say which logs they are part of.
create table checkpoint_segments (
  ord bigint generated always as identity primary key,
  tenant text collate "C" not null,
  domain text collate "C" not null,
  hash bytea not null,                     -- keyed: of what is inside
  payload bytea not null
);
create unique index checkpoint_segments_by_hash on checkpoint_segments (tenant, domain, hash);

create table checkpoint_runs (
  tenant text collate "C" not null,
  thread bigint not null,
  log bigint not null,
  low bigint not null,                   -- items low..high-1 of the log are this segment
  high bigint not null,
  segment bigint not null,
  mac bytea not null,
  primary key (tenant, thread, log, low)
);
create index checkpoint_runs_by_segment on checkpoint_runs (tenant, segment);

-- What LangGraph's tasks wrote beside a checkpoint.
create table checkpoint_writes (
  tenant text collate "C" not null,
  thread bigint not null,
  checkpoint text collate "C" not null,               -- an id; the checkpoint itself may come later
  task_id text collate "C" not null,
  idx bigint not null,
  task_path text collate "C" not null,
  payload bytea not null,                  -- sealed: the channel and its value
  primary key (tenant, thread, checkpoint, task_id, idx)
);

-- Data keys, each wrapped by the key that was given.
create table checkpoint_keys (
  tenant text collate "C" not null,
  domain text collate "C" not null,
  kek_id text collate "C" not null,
  salt bytea not null,
  params text collate "C" not null,
  wrapped bytea not null,                  -- the domain's data key under that key
  state text collate "C" not null,                    -- active, retiring
  created_at bigint not null,
  primary key (tenant, domain, kek_id)
);

alter table checkpoint_threads enable row level security;
alter table checkpoint_threads force row level security;
create policy tenant_rows on checkpoint_threads
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table checkpoint_branches enable row level security;
alter table checkpoint_branches force row level security;
create policy tenant_rows on checkpoint_branches
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table checkpoints enable row level security;
alter table checkpoints force row level security;
create policy tenant_rows on checkpoints
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table checkpoint_tags enable row level security;
alter table checkpoint_tags force row level security;
create policy tenant_rows on checkpoint_tags
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table checkpoint_items enable row level security;
alter table checkpoint_items force row level security;
create policy tenant_rows on checkpoint_items
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table checkpoint_segments enable row level security;
alter table checkpoint_segments force row level security;
create policy tenant_rows on checkpoint_segments
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table checkpoint_runs enable row level security;
alter table checkpoint_runs force row level security;
create policy tenant_rows on checkpoint_runs
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table checkpoint_writes enable row level security;
alter table checkpoint_writes force row level security;
create policy tenant_rows on checkpoint_writes
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table checkpoint_keys enable row level security;
alter table checkpoint_keys force row level security;
create policy tenant_rows on checkpoint_keys
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
