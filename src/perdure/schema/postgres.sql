-- The whole schema on PostgreSQL, as all steps together leave it. Times are microseconds since 1970 in UTC, money is in
-- nano-units. `tenant` comes first in every key and index; `ord` is a row number, `position` a place in the feed.

create table perdure_steps (
  number integer primary key,             -- the schema's version is the greatest number
  name text collate "C" not null,
  hash text collate "C" not null,                     -- sha-256 of the step's text
  applied_at bigint not null
);

create table perdure_settings (           -- facts of the store itself, such as its salt
  name text collate "C" primary key,
  value text collate "C" not null
);

create table chores (                     -- housekeeping: one runner at a time, by lease
  name text collate "C" primary key,      -- tenant/chore
  owner text collate "C",
  lease_until bigint not null default 0,
  due_at bigint not null,
  ran_at bigint,
  outcome text collate "C",
  news_at bigint not null                 -- when the tenant last said that it had been written to
);
create index chores_by_due on chores (due_at, name);

-- Who changed what and when: the audit trail and the change feed are one table. Never deleted from at its end.
create sequence changes_position;
create table changes (
  position bigint not null default nextval('changes_position'),
  tx bigint not null default (pg_current_xact_id()::text::bigint),  -- readers stop before the oldest open one
  tenant text collate "C" not null,
  kind text collate "C" not null,                     -- conversation, message, ...
  verb text collate "C" not null,                     -- create, update, delete, erase, ...
  object text collate "C" not null,
  parent text collate "C",
  actor text collate "C",
  reason text,
  at bigint not null,
  primary key (tenant, position)
);
create index changes_by_commit on changes (tenant, tx, position);

create table idempotency (                -- what a creating verb answered to a key, for a day
  tenant text collate "C" not null,
  verb text collate "C" not null,
  key text collate "C" not null,
  digest text collate "C" not null,
  answer text collate "C" not null,
  expires_at bigint not null,
  primary key (tenant, verb, key)
);
create index idempotency_by_expiry on idempotency (tenant, expires_at);

create table conversations (
  ord bigint generated always as identity,
  tenant text collate "C" not null,
  id text collate "C" not null,
  agent_id text collate "C" not null,
  user_id text collate "C" not null,
  title text collate "C",                             -- case-folded, for title_contains
  metadata json not null,                 -- json, not jsonb: given back as it was written
  created_at bigint not null,
  updated_at bigint not null,
  active_at bigint not null,             -- when the last message was added, or created_at
  next_seq bigint not null default 1,
  message_count bigint not null default 0,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  total_tokens bigint not null default 0,
  cost bigint not null default 0,
  version integer not null default 1,
  inherits bigint not null default 0,     -- seqs up to here are other conversations' rows, see forks
  live integer not null default 1,        -- 0: deleted, kept only because a fork shares its messages
  primary key (tenant, ord)
);
create unique index conversations_by_id on conversations (tenant, id);
create index conversations_by_recency on conversations (tenant, active_at, id) where live = 1;
create index conversations_by_user on conversations (tenant, user_id, active_at, id) where live = 1;
create index conversations_by_agent on conversations (tenant, agent_id, active_at, id) where live = 1;
create index conversations_deleted on conversations (tenant, ord) where live = 0;

create table conversation_labels (        -- tags and participants, for filters
  tenant text collate "C" not null,
  kind text collate "C" not null,                     -- tag, participant
  label text collate "C" not null,
  conversation bigint not null,
  primary key (tenant, kind, label, conversation),
  foreign key (tenant, conversation) references conversations (tenant, ord) on delete cascade
);
create index conversation_labels_by_conversation on conversation_labels (tenant, conversation);

create table forks (                      -- a conversation reads seq low..high from the source's rows
  tenant text collate "C" not null,
  conversation bigint not null,
  low_seq bigint not null,
  high_seq bigint not null,
  source bigint not null,
  primary key (tenant, conversation, low_seq),
  foreign key (tenant, conversation) references conversations (tenant, ord) on delete cascade,
  foreign key (tenant, source) references conversations (tenant, ord)
);
create index forks_by_source on forks (tenant, source, high_seq);

create table messages (
  ord bigint generated always as identity,
  tenant text collate "C" not null,
  conversation bigint not null,
  seq bigint not null,
  id text collate "C" not null,
  role text collate "C" not null,
  name text collate "C",
  body text not null,                     -- the text, or its parts as JSON
  form integer not null,                  -- 0 text, 1 parts
  metadata text,
  input_tokens bigint,
  output_tokens bigint,
  total_tokens bigint,
  model text collate "C",
  cost bigint,
  parent_id text collate "C",
  created_at bigint not null,
  version integer not null default 1,
  state integer not null default 0,       -- 0 live, 1 deleted, 2 erased
  primary key (tenant, ord),
  foreign key (tenant, conversation) references conversations (tenant, ord) on delete cascade
);
create unique index messages_by_seq on messages (tenant, conversation, seq);
create unique index messages_by_id on messages (tenant, id);

create table message_versions (           -- what an edited or deleted message was before
  tenant text collate "C" not null,
  message bigint not null,
  version integer not null,
  role text collate "C" not null,
  name text collate "C",
  body text not null,
  form integer not null,
  metadata text,
  input_tokens bigint,
  output_tokens bigint,
  total_tokens bigint,
  model text collate "C",
  cost bigint,
  verb text collate "C" not null,                     -- edit, delete: what ended this version
  actor text collate "C",
  at bigint not null,
  primary key (tenant, message, version),
  foreign key (tenant, message) references messages (tenant, ord) on delete cascade
);

create table token_totals (               -- what token_report adds up: one row for each day of each combination
  tenant text collate "C" not null,
  user_id text collate "C" not null,
  agent_id text collate "C" not null,
  model text collate "C" not null,
  day integer not null,                   -- days since 1970 in UTC
  messages bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  total_tokens bigint not null,
  cost bigint not null,
  primary key (tenant, user_id, agent_id, model, day)
);

-- The text index: derived from messages, absorbed from the feed before a search answers.
create table text_scopes (
  scope bigint generated always as identity,
  tenant text collate "C" not null,
  user_id text collate "C" not null,
  primary key (tenant, scope)
);
create unique index text_scopes_by_user on text_scopes (tenant, user_id);

create table text_progress (              -- how far along the feed the index is
  tenant text collate "C" primary key,
  tx bigint not null default 0,
  position bigint not null default 0
);

create table text_documents (
  doc bigint not null,                   -- messages.ord
  tenant text collate "C" not null,
  scope bigint not null,
  conversation bigint not null,
  version integer not null,               -- of the message
  length integer not null,
  terms text not null,                    -- " term:frequency term:frequency "
  primary key (tenant, doc)
);
create index text_documents_by_conversation on text_documents (tenant, conversation, doc);

create table text_postings (
  tenant text collate "C" not null,
  term text collate "C" not null,
  scope bigint not null,
  doc bigint not null,
  primary key (tenant, term, scope, doc)
);

create table text_terms (                 -- in how many documents a term is; scope 0 is the whole tenant
  tenant text collate "C" not null,
  scope bigint not null,
  term text collate "C" not null,
  documents bigint not null,
  primary key (tenant, scope, term)
);

create table text_totals (
  tenant text collate "C" not null,
  scope bigint not null,
  documents bigint not null,
  length bigint not null,
  primary key (tenant, scope)
);

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

-- Items: key-value documents under namespaces, with their vectors. A namespace is text that sorts as its labels do.
create table items (
  ord bigint generated always as identity,
  tenant text collate "C" not null,
  namespace text collate "C" not null,
  key text collate "C" not null,
  value text not null,                    -- JSON
  created_at bigint not null,
  updated_at bigint not null,
  expires_at bigint,                      -- when it may be swept away
  lifetime bigint,                        -- microseconds that a read or a write gives it anew
  primary key (tenant, ord)
);
create unique index items_by_key on items (tenant, namespace, key);
create index items_by_expiry on items (tenant, expires_at) where expires_at is not null;

create table item_vectors (
  tenant text collate "C" not null,
  item bigint not null,
  space text collate "C" not null,        -- the embedding's model and dimensions: spaces never mix
  path text collate "C" not null,         -- of the embedded text in the value
  vector bytea not null,                  -- float32, little-endian
  primary key (tenant, item, path),
  foreign key (tenant, item) references items (tenant, ord) on delete cascade
);

-- A tenant sees its own rows only, whatever a statement forgets; forced, so that the tables' owner is bound too.
alter table changes enable row level security;
alter table changes force row level security;
create policy tenant_rows on changes
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table idempotency enable row level security;
alter table idempotency force row level security;
create policy tenant_rows on idempotency
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table conversations enable row level security;
alter table conversations force row level security;
create policy tenant_rows on conversations
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table conversation_labels enable row level security;
alter table conversation_labels force row level security;
create policy tenant_rows on conversation_labels
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table forks enable row level security;
alter table forks force row level security;
create policy tenant_rows on forks
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table messages enable row level security;
alter table messages force row level security;
create policy tenant_rows on messages
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table message_versions enable row level security;
alter table message_versions force row level security;
create policy tenant_rows on message_versions
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table token_totals enable row level security;
alter table token_totals force row level security;
create policy tenant_rows on token_totals
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table text_scopes enable row level security;
alter table text_scopes force row level security;
create policy tenant_rows on text_scopes
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table text_progress enable row level security;
alter table text_progress force row level security;
create policy tenant_rows on text_progress
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table text_documents enable row level security;
alter table text_documents force row level security;
create policy tenant_rows on text_documents
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table text_postings enable row level security;
alter table text_postings force row level security;
create policy tenant_rows on text_postings
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table text_terms enable row level security;
alter table text_terms force row level security;
create policy tenant_rows on text_terms
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table text_totals enable row level security;
alter table text_totals force row level security;
create policy tenant_rows on text_totals
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
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
alter table items enable row level security;
alter table items force row level security;
create policy tenant_rows on items
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
alter table item_vectors enable row level security;
alter table item_vectors force row level security;
create policy tenant_rows on item_vectors
  using (tenant = current_setting('perdure.tenant', true))
  with check (tenant = current_setting('perdure.tenant', true));
