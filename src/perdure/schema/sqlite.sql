-- The whole schema on SQLite, as all steps together leave it. Times are microseconds since 1970 in UTC, money is in
-- nano-units. `tenant` comes first in every key and index; `ord` is a row number, `position` a place in the feed.

create table perdure_steps (
  number integer primary key,             -- the schema's version is the greatest number
  name text not null,
  hash text not null,                     -- sha-256 of the step's text
  applied_at integer not null
) strict;

create table perdure_settings (           -- facts of the store itself, such as its salt
  name text primary key,
  value text not null
) strict, without rowid;

create table chores (                     -- housekeeping: one runner at a time, by lease
  name text primary key,                  -- tenant/chore
  owner text,
  lease_until integer not null default 0,
  due_at integer not null,
  ran_at integer,
  outcome text,
  news_at integer not null                -- when the tenant last said that it had been written to
) strict, without rowid;
create index chores_by_due on chores (due_at, name);

-- Who changed what and when: the audit trail and the change feed are one table. Never deleted from at its end.
create table changes (
  tenant text not null,
  position integer not null,
  kind text not null,                     -- conversation, message, ...
  verb text not null,                     -- create, update, delete, erase, ...
  object text not null,
  parent text,
  actor text,
  reason text,
  at integer not null,
  primary key (tenant, position)
) strict, without rowid;

create table idempotency (                -- what a creating verb answered to a key, for a day
  tenant text not null,
  verb text not null,
  key text not null,
  digest text not null,
  answer text not null,
  expires_at integer not null,
  primary key (tenant, verb, key)
) strict, without rowid;
create index idempotency_by_expiry on idempotency (tenant, expires_at);

create table conversations (
  ord integer primary key autoincrement,
  tenant text not null,
  id text not null,
  agent_id text not null,
  user_id text not null,
  title text,                             -- case-folded, for title_contains
  metadata text not null,
  created_at integer not null,
  updated_at integer not null,
  active_at integer not null,             -- when the last message was added, or created_at
  next_seq integer not null default 1,
  message_count integer not null default 0,
  input_tokens integer not null default 0,
  output_tokens integer not null default 0,
  total_tokens integer not null default 0,
  cost integer not null default 0,
  version integer not null default 1,
  inherits integer not null default 0,    -- seqs up to here are other conversations' rows, see forks
  live integer not null default 1         -- 0: deleted, kept only because a fork shares its messages
) strict;
create unique index conversations_by_id on conversations (tenant, id);
create index conversations_by_recency on conversations (tenant, active_at, id) where live = 1;
create index conversations_by_user on conversations (tenant, user_id, active_at, id) where live = 1;
create index conversations_by_agent on conversations (tenant, agent_id, active_at, id) where live = 1;
create index conversations_deleted on conversations (tenant, ord) where live = 0;

create table conversation_labels (        -- tags and participants, for filters
  tenant text not null,
  kind text not null,                     -- tag, participant
  label text not null,
  conversation integer not null references conversations (ord) on delete cascade,
  primary key (tenant, kind, label, conversation)
) strict, without rowid;
create index conversation_labels_by_conversation on conversation_labels (tenant, conversation);
create index conversation_labels_by_reference on conversation_labels (conversation);

create table forks (                      -- a conversation reads seq low..high from the source's rows
  tenant text not null,
  conversation integer not null references conversations (ord) on delete cascade,
  low_seq integer not null,
  high_seq integer not null,
  source integer not null references conversations (ord),
  primary key (tenant, conversation, low_seq)
) strict, without rowid;
create index forks_by_source on forks (tenant, source, high_seq);
create index forks_by_reference on forks (source);
create index forks_by_conversation on forks (conversation);

create table messages (
  ord integer primary key,
  tenant text not null,
  conversation integer not null references conversations (ord) on delete cascade,
  seq integer not null,
  id text not null,
  role text not null,
  name text,
  body text not null,                     -- the text, or its parts as JSON
  form integer not null,                  -- 0 text, 1 parts
  metadata text,
  input_tokens integer,
  output_tokens integer,
  total_tokens integer,
  model text,
  cost integer,
  parent_id text,
  created_at integer not null,
  version integer not null default 1,
  state integer not null default 0        -- 0 live, 1 deleted, 2 erased
) strict;
create unique index messages_by_seq on messages (conversation, seq);
create unique index messages_by_id on messages (tenant, id);

create table message_versions (           -- what an edited or deleted message was before
  tenant text not null,
  message integer not null references messages (ord) on delete cascade,
  version integer not null,
  role text not null,
  name text,
  body text not null,
  form integer not null,
  metadata text,
  input_tokens integer,
  output_tokens integer,
  total_tokens integer,
  model text,
  cost integer,
  verb text not null,                     -- edit, delete: what ended this version
  actor text,
  at integer not null,
  primary key (tenant, message, version)
) strict, without rowid;
create index message_versions_by_reference on message_versions (message);

create table token_totals (               -- what token_report adds up: one row for each day of each combination
  tenant text not null,
  user_id text not null,
  agent_id text not null,
  model text not null,
  day integer not null,                   -- days since 1970 in UTC
  messages integer not null,
  input_tokens integer not null,
  output_tokens integer not null,
  total_tokens integer not null,
  cost integer not null,
  primary key (tenant, user_id, agent_id, model, day)
) strict, without rowid;

-- The text index: derived from messages, absorbed from the feed before a search answers.
create table text_scopes (
  scope integer primary key autoincrement,
  tenant text not null,
  user_id text not null
) strict;
create unique index text_scopes_by_user on text_scopes (tenant, user_id);

create table text_progress (              -- how far along the feed the index is
  tenant text primary key,
  tx integer not null default 0,
  position integer not null default 0
) strict, without rowid;

create table text_documents (
  doc integer primary key,                -- messages.ord
  tenant text not null,
  scope integer not null,
  conversation integer not null,
  version integer not null,               -- of the message
  length integer not null,
  terms text not null                     -- " term:frequency term:frequency "
) strict;
create index text_documents_by_conversation on text_documents (tenant, conversation, doc);

create table text_postings (
  tenant text not null,
  term text not null,
  scope integer not null,
  doc integer not null,
  primary key (tenant, term, scope, doc)
) strict, without rowid;

create table text_terms (                 -- in how many documents a term is; scope 0 is the whole tenant
  tenant text not null,
  scope integer not null,
  term text not null,
  documents integer not null,
  primary key (tenant, scope, term)
) strict, without rowid;

create table text_totals (
  tenant text not null,
  scope integer not null,
  documents integer not null,
  length integer not null,
  primary key (tenant, scope)
) strict, without rowid;

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

-- Items: key-value documents under namespaces, with their vectors. A namespace is text that sorts as its labels do.
create table items (
  ord integer primary key,
  tenant text not null,
  namespace text not null,
  key text not null,
  value text not null,                    -- JSON
  created_at integer not null,
  updated_at integer not null,
  expires_at integer,                     -- when it may be swept away
  lifetime integer                        -- microseconds that a read or a write gives it anew
) strict;
create unique index items_by_key on items (tenant, namespace, key);
create index items_by_expiry on items (tenant, expires_at) where expires_at is not null;

create table item_vectors (
  ord integer primary key,
  tenant text not null,
  item integer not null references items (ord) on delete cascade,
  space text not null,                    -- the embedding's model and dimensions: spaces never mix
  path text not null,                     -- of the embedded text in the value
  vector blob not null                    -- float32, little-endian
) strict;
create unique index item_vectors_by_item on item_vectors (item, path);
