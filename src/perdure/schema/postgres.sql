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
  name text collate "C" primary key,
  owner text collate "C",
  lease_until bigint not null default 0,
  due_at bigint not null,
  ran_at bigint,
  outcome text collate "C"
);

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
