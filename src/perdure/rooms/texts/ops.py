"""Recipes on the text index: absorb what is new, forget what is deleted, find and rank.

The index is derived: it follows the change feed and catches up before it answers, so it never slows a write, and
losing it costs time, not data. Absorbing a message twice changes nothing, as each document carries the version of
the message it was made from; that is how entries which an open transaction may still precede are taken early (a
message just committed is found at once) and met again later.

Candidates are the documents that hold the rarest terms of the query, rarest first up to a cap, newest first within a
term. A word found in most documents is not even looked up once there are candidates enough, so it costs nothing.
"""

import json
from collections.abc import Callable, Sequence

import msgspec

from perdure.grammar import Params, Row, Steps, execute, execute_many, fetch_all, fetch_one, fetch_value, op
from perdure.values import rank
from perdure.values.text import analyse

BATCH = 500
"""Entries of the feed absorbed in one transaction."""
CANDIDATES = 1_000
"""Documents that are scored for one query."""
_SPARE = 32
"""More hits than asked for, in case some were deleted since they were indexed."""

Cursor = tuple[int, int]
TextOf = Callable[[str, int], str]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A document as the index holds it."""

    doc: int
    scope: int
    conversation: int
    version: int
    length: int
    terms: str


class Found(msgspec.Struct, frozen=True, gc=False):
    """A hit: the message's row, the id of a conversation that shows it, and its score."""

    row: Row
    conversation_id: str
    score: float


# -- catching up -----------------------------------------------------------------------------------------------------------


@op(reads=True)
def behind() -> Steps[bool]:
    """Whether there is anything new to absorb."""
    progress = yield from fetch_one("texts.progress")
    tx, position = progress or (0, 0)
    news = yield from fetch_one("texts.news", tx=tx, position=position, limit=1)
    return news is not None


@op(long=True)
def absorb(after: Cursor | None, text_of: TextOf, batch: int = BATCH) -> Steps[Cursor | None]:
    """The cursor to go on from, None when everything was absorbed."""
    held = yield from _hold()
    tx, position = start = max(after or held, held)
    news = yield from fetch_all("texts.news", tx=tx, position=position, limit=batch)
    settled = held
    for row in news:
        # Past an unsettled entry the cursor stays: one with a lower number may have been committed behind this batch.
        if start > held or not row[2]:
            break
        settled = (row[1], row[0])
    living = {row[3]: row for row in news if row[3] is not None and row[5] == 0}
    yield from _absorb(living, text_of)
    if settled > held:
        yield from execute("texts.advance", tx=settled[0], position=settled[1])
    return (news[-1][1], news[-1][0]) if len(news) == batch else None


def _hold() -> Steps[Cursor]:
    """The index's cursor; one absorbs or removes at a time, so counters stay exact."""
    held = yield from fetch_one("texts.hold")
    if held is None:
        yield from execute("texts.start")
        held = yield from fetch_one("texts.hold")
    assert held is not None
    return held[0], held[1]


def _absorb(living: dict[int, Row], text_of: TextOf) -> Steps[None]:
    if not living:
        return
    known = {entry[0]: entry for entry in (yield from fetch_all("texts.documents", docs=sorted(living)))}
    fresh = [row for doc, row in sorted(living.items()) if doc not in known or known[doc][2] != row[4]]
    if not fresh:
        return
    scopes = yield from _scopes_for(sorted({row[8] for row in fresh}))
    added: list[Entry] = []
    for row in fresh:
        terms = analyse(text_of(row[6], row[7]))
        added.append(Entry(row[3], scopes[row[8]], row[9], row[4], len(terms), rank.pack_terms(terms)))
    stale = [known[entry.doc] for entry in added if entry.doc in known]
    yield from _change(stale, added)


def _scopes_for(users: list[str]) -> Steps[dict[str, int]]:
    found = {row[0]: row[1] for row in (yield from fetch_all("texts.scopes", users=users))}
    missing: list[Params] = [{"user_id": user} for user in users if user not in found]
    if missing:
        yield from execute_many("texts.add_scope", missing)
        found = {row[0]: row[1] for row in (yield from fetch_all("texts.scopes", users=users))}
    return found


def _change(removed: Sequence[Row], added: Sequence[Entry]) -> Steps[None]:
    """Takes documents out of the index and puts others in, with their postings and counters."""
    terms: dict[tuple[int, str], int] = {}
    totals: dict[int, list[int]] = {}
    dropped: list[Params] = []
    for doc, scope, _, length, packed in removed:
        words = rank.unpack_terms(packed)
        _count(terms, totals, scope, words, length, -1)
        dropped += [{"term": term, "scope": scope, "doc": doc} for term in words]
    posted: list[Params] = []
    for entry in added:
        words = rank.unpack_terms(entry.terms)
        _count(terms, totals, entry.scope, words, entry.length, 1)
        posted += [{"term": term, "scope": entry.scope, "doc": entry.doc} for term in words]
    if removed:
        yield from execute("texts.drop_documents", docs=[row[0] for row in removed])
        yield from execute_many("texts.drop_posting", dropped)
    yield from execute_many("texts.add_document", [_document(entry) for entry in added])
    yield from execute_many("texts.add_posting", sorted(posted, key=lambda p: (p["term"], p["scope"], p["doc"])))
    counts = json.dumps([[scope, term, number] for (scope, term), number in sorted(terms.items()) if number])
    yield from execute("texts.count_terms", counts=counts)
    if removed:
        yield from execute("texts.drop_empty_terms", counts=counts)
    for scope, (documents, length) in sorted(totals.items()):
        yield from execute("texts.count_documents", scope=scope, documents=documents, length=length)


def _count(
    terms: dict[tuple[int, str], int], totals: dict[int, list[int]], scope: int, words: dict[str, int], length: int,
    sign: int,
) -> None:  # fmt: skip
    for owner in (scope, 0):
        total = totals.setdefault(owner, [0, 0])
        total[0] += sign
        total[1] += sign * length
        for term in words:
            terms[owner, term] = terms.get((owner, term), 0) + sign


def _document(entry: Entry) -> Params:
    return {
        "doc": entry.doc, "scope": entry.scope, "conversation": entry.conversation, "version": entry.version,
        "length": entry.length, "terms": entry.terms,
    }  # fmt: skip


def forget(docs: list[int]) -> Steps[None]:
    """Takes documents out of the index at once: a part of each deleting recipe."""
    if not docs:
        return
    yield from _hold()
    known = yield from fetch_all("texts.documents", docs=docs)
    if known:
        yield from _change(known, ())


@op(long=True)
def clear() -> Steps[None]:
    """An empty index at the beginning of the feed; the next search or chore builds it again."""
    yield from _hold()
    for name in ("documents", "postings", "terms", "totals"):
        yield from execute(f"texts.clear_{name}")
    yield from execute("texts.advance", tx=0, position=0)


# -- finding ---------------------------------------------------------------------------------------------------------------


@op(reads=True, long=True)
def search(
    terms: list[str], user_id: str | None, conversation_id: str | None, limit: int, scorer: rank.Bm25
) -> Steps[list[Found]]:
    """The best messages of a user, a conversation or the tenant, best first; equal scores in order of id."""
    conversation: Row | None = None
    if conversation_id is not None:
        conversation = yield from fetch_one("texts.conversation", id=conversation_id)
        if conversation is None or user_id not in {None, conversation[3]}:
            return []
        user_id = conversation[3]
    scope = 0
    if user_id is not None:
        scope = (yield from _scope_of(user_id)) or -1
    documents, length = (yield from fetch_one("texts.totals", scope=scope)) or (0, 0)
    found = yield from fetch_all("texts.frequencies", scope=scope, terms=terms)
    frequencies: dict[str, int] = {row[0]: row[1] for row in found if row[1] > 0}
    wanted = [term for term in terms if term in frequencies]
    if not wanted:
        return []
    if conversation is None:
        docs = yield from _candidates(wanted, frequencies, documents, scope, limit)
    else:
        docs = yield from _in_conversation(conversation, wanted)
    entries = yield from fetch_all("texts.documents", docs=docs)
    idfs = [scorer.idf(documents, frequencies[term]) for term in wanted]
    mean = length / documents if documents else 0.0
    scored = [
        (scorer.score([rank.frequency(packed, term) for term in wanted], size, mean, idfs), doc)
        for doc, _, _, size, packed in entries
    ]
    best = yield from _best(scored, limit + _SPARE)
    return (yield from _messages(best, conversation_id))[:limit]


def _best(scored: list[tuple[float, int]], number: int) -> Steps[list[tuple[float, int]]]:
    """The (score, document) pairs with the highest scores; of equals that do not all fit, those with the lowest ids."""
    scored.sort(reverse=True)
    if len(scored) <= number or scored[number][0] < scored[number - 1][0]:
        return scored[:number]
    lowest = scored[number - 1][0]
    sure = [pair for pair in scored if pair[0] > lowest]
    equal = sorted(doc for score, doc in scored if score == lowest)
    rows = yield from fetch_all("texts.first_by_id", docs=equal, limit=number - len(sure))
    return sure + [(lowest, row[0]) for row in rows]


def _scope_of(user_id: str) -> Steps[int | None]:
    rows = yield from fetch_all("texts.scopes", users=[user_id])
    return rows[0][1] if rows else None


def _candidates(
    wanted: list[str], frequencies: dict[str, int], documents: int, scope: int, limit: int
) -> Steps[list[int]]:
    docs: dict[int, None] = {}
    flags = frozenset({"scope"}) if scope else frozenset[str]()
    for term in sorted(wanted, key=lambda word: (frequencies[word], word)):
        common = frequencies[term] * 2 > documents
        if len(docs) >= CANDIDATES or (common and len(docs) >= limit):
            break
        rows = yield from fetch_all("texts.holding", flags=flags, term=term, scope=scope, limit=CANDIDATES - len(docs))
        docs.update((row[0], None) for row in rows)
    return sorted(docs)


def _in_conversation(conversation: Row, wanted: list[str]) -> Steps[list[int]]:
    owner, inherits, next_seq, _ = conversation
    segments = [(owner, inherits + 1, next_seq)]
    if inherits:
        found = yield from fetch_all("texts.segments", conversation=owner)
        segments += [(origin, low, high) for origin, low, high in found]
    docs: list[int] = []
    for origin, low, high in segments:
        rows = yield from fetch_all(
            "texts.holding_in_conversation",
            conversation=origin,
            low=low,
            high=high,
            terms=wanted,
            limit=10 * CANDIDATES,
        )
        docs += [row[0] for row in rows]
    return sorted(docs)


def _messages(scored: list[tuple[float, int]], conversation_id: str | None) -> Steps[list[Found]]:
    scores = {doc: score for score, doc in scored}
    rows = yield from fetch_all("texts.found", docs=sorted(scores))
    hits: list[Found] = []
    for row in rows:
        shown = conversation_id or (row[17] if row[18] else None)
        if shown is None:
            shown = yield from fetch_value("texts.reader_of", conversation=row[1], seq=row[2])
        if shown is not None:
            hits.append(Found(row, shown, scores[row[0]]))
    hits.sort(key=lambda hit: (-hit.score, hit.row[3]))
    return hits
