"""Full-text search: the same hits, scores and order on every driver, and nothing of what another scope holds."""

import asyncio
import math
from collections import Counter

import psycopg
import pytest

from perdure.rooms.texts import ops as texts
from perdure.services.search import text_of
from perdure.testing.suite.apart import on_postgres, started
from perdure.values import rank
from perdure.values.errors import Invalid, OverLimit
from perdure.values.text import analyse, query_terms

_WORDS = [
    "checkpoint",
    "tokens",
    "memory",
    "agent",
    "postgres",
    "sqlite",
    "recall",
    "forget",
    "lease",
    "chore",
    "snippet",
    "ranking",
    "vector",
    "session",
    "branch",
    "merge",
    "replay",
    "tenant",
    "quota",
    "audit",
    "erase",
    "export",
    "import",
    "stream",
    "tool",
    "result",
    "reasoning",
    "image",
    "naïve",
    "café",
    "東京都",
    "max_tokens",
]


# -- a plain BM25 to compare with ------------------------------------------------------------------------------------------


def _expected(corpus, query, limit, shown=None):
    """(id, score) of the best documents of a corpus of {id: text}, by the textbook; ``shown`` limits what may appear."""
    counts = {name: Counter(analyse(text)) for name, text in corpus.items()}
    sizes = {name: sum(terms.values()) for name, terms in counts.items()}
    held = Counter(term for terms in counts.values() for term in terms)
    wanted = [term for term in query_terms(query, 64) if held[term]]
    candidates = set()
    for term in sorted(wanted, key=lambda word: (held[word], word)):
        # The rule of the contract: a word in most documents is not looked up once there are hits enough.
        if shown is None and 2 * held[term] > len(corpus) and len(candidates) >= limit:
            break
        candidates |= {name for name in corpus if counts[name][term]}
    mean = sum(sizes.values()) / max(1, len(corpus))
    scores = {}
    for name in candidates if shown is None else candidates & shown:
        total = 0.0
        for term in wanted:
            found = counts[name][term]
            if found:
                idf = math.log1p((len(corpus) - held[term] + 0.5) / (held[term] + 0.5))
                total += idf * found * 1.9 / (found + 0.9 * (1 - 0.4 + 0.4 * (sizes[name] / mean)))
        scores[name] = total
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:limit]


def _found(hits):
    return [(hit.message.id, hit.score) for hit in hits]


def _sentence(random):
    chosen = random.choices(_WORDS, [1 / (place + 1) for place in range(len(_WORDS))], k=random.randrange(1, 12))
    return " ".join(chosen)


async def _fill(store, random, messages=60):
    """{user: {conversation: {id: text}}} of conversations that were added to, edited and deleted from at random."""
    corpus = {"ann": {"a1": {}, "a2": {}}, "bob": {"b1": {}}}
    places = [(user, name) for user in corpus for name in corpus[user]]
    for user, name in places:
        await store.create_conversation("agent", user, id=name)
    for number in range(messages):
        user, name = random.choice(places)
        own = corpus[user][name]
        chance = random.random()
        if chance < 0.15 and own:
            changed = random.choice(sorted(own))
            own[changed] = _sentence(random)
            await store.edit_message(changed, own[changed])
        elif chance < 0.25 and own:
            gone = random.choice(sorted(own))
            del own[gone]
            await (store.delete_message(gone) if number % 2 else store.erase_message(gone))
        else:
            made = await store.add_message(name, "user", _sentence(random), id=f"m{random.randrange(10**9)}")
            own[made.id] = made.text
        if number % 20 == 0:
            await store.absorb_text()
    return corpus


def _joined(*corpora):
    return {name: text for corpus in corpora for name, text in corpus.items()}


async def test_hits_scores_and_order_are_those_of_plain_bm25(opener, seeded_random):
    """On every driver exactly the same numbers, for a user, a conversation and the whole tenant."""
    async with opener() as store:
        corpus = await _fill(store, seeded_random)
        of_ann = _joined(*corpus["ann"].values())
        of_all = _joined(of_ann, *corpus["bob"].values())
        for _ in range(12):
            query = _sentence(seeded_random)
            limit = seeded_random.choice([1, 3, 10, 100])
            assert _found(await store.search_messages(query, user_id="ann", limit=limit)) == _expected(
                of_ann, query, limit
            )
            assert _found(await store.search_messages(query, limit=limit)) == _expected(of_all, query, limit)
            assert _found(await store.search_messages(query, conversation_id="a2", limit=limit)) == _expected(
                of_ann, query, limit, set(corpus["ann"]["a2"])
            )


async def test_equal_scores_are_in_order_of_id(opener, seeded_random):
    """Also when far more messages are equal than are asked for."""
    names = [f"m{number:03}" for number in range(80)]
    written = seeded_random.sample(names, len(names))
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        await store.add_messages("c", [{"role": "user", "content": "same words", "id": name} for name in written])
        hits = await store.search_messages("words", limit=5)
    assert [hit.message.id for hit in hits] == names[:5]


# -- scopes ----------------------------------------------------------------------------------------------------------------


async def test_scores_of_a_user_tell_nothing_of_others(opener):
    """Another user's messages, and another tenant's, change neither hits nor scores."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        await store.add_message("a", "user", "the checkpoint was restored")
        await store.add_message("a", "user", "nothing to see")
        before = await store.search_messages("checkpoint", user_id="ann")
        await store.create_conversation("agent", "bob", id="b")
        await store.add_messages("b", [{"role": "user", "content": f"checkpoint {n}"} for n in range(20)])
        other = store.for_tenant("acme")
        await other.create_conversation("agent", "ann", id="a")
        await other.add_message("a", "user", "checkpoint checkpoint")
        assert await store.search_messages("checkpoint", user_id="ann") == before
        assert await store.search_messages("checkpoint", conversation_id="a") == before
        assert len(await store.search_messages("checkpoint", limit=50)) == 21
        assert [hit.message.text for hit in await other.search_messages("checkpoint")] == ["checkpoint checkpoint"]


async def test_a_conversation_that_is_not_the_users_has_no_hits(opener):
    """Nor has one that does not exist, or that another tenant has."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        await store.add_message("a", "user", "checkpoint")
        assert len(await store.search_messages("checkpoint", user_id="ann", conversation_id="a")) == 1
        assert await store.search_messages("checkpoint", user_id="bob", conversation_id="a") == []
        assert await store.search_messages("checkpoint", conversation_id="none") == []
        assert await store.search_messages("checkpoint", user_id="nobody") == []
        assert await store.for_tenant("acme").search_messages("checkpoint", conversation_id="a") == []


# -- what is found ---------------------------------------------------------------------------------------------------------


async def test_a_hit_is_the_whole_message_with_a_highlighted_snippet(opener):
    """Inflections and accents are highlighted as they are written."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        long = "before " * 40 + "we stored the Checkpoints of naïve agents " + "after " * 40
        made = await store.add_message("a", "assistant", long, name="helper", metadata={"k": 1})
        (hit,) = await store.search_messages("checkpoint naive")
    assert hit.message == made
    assert "the **Checkpoints** of **naïve** agents" in hit.snippet
    assert len(hit.snippet) < 200
    assert hit.score > 0


async def test_parts_are_searched_by_their_text(opener):
    """Text parts of a message made of parts are found."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        made = await store.add_message("a", "user", [{"type": "text", "text": "look at this zebra"}])
        assert [hit.message for hit in await store.search_messages("zebra")] == [made]


async def test_an_edited_message_is_found_by_what_it_says_now(opener):
    """And no longer by what it said before, whether or not a search came between."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        made = await store.add_message("a", "user", "old zebra")
        assert len(await store.search_messages("zebra")) == 1
        await store.edit_message(made.id, "new giraffe")
        assert await store.search_messages("zebra") == []
        (hit,) = await store.search_messages("giraffe")
        assert hit.message == await store.get_message(made.id)


async def test_what_is_deleted_or_erased_is_not_found(opener):
    """Messages and whole conversations, indexed before or not."""
    async with opener() as store:
        for name in ("a", "b", "c"):
            await store.create_conversation("agent", "ann", id=name)
        kept = await store.add_message("a", "user", "zebra kept")
        gone = [await store.add_message("a", "user", "zebra gone") for _ in range(2)]
        await store.add_message("b", "user", "zebra b")
        await store.add_message("c", "user", "zebra c")
        assert len(await store.search_messages("zebra")) == 5
        unseen = await store.add_message("a", "user", "zebra never indexed")
        await store.delete_message(gone[0].id)
        await store.erase_message(gone[1].id)
        await store.delete_message(unseen.id)
        await store.delete_conversation("b")
        await store.erase_conversation("c")
        assert [hit.message for hit in await store.search_messages("zebra")] == [kept]
        await _assert_exact(store, {"ann": {kept.id: kept.text}})


async def test_an_erased_word_leaves_no_trace_in_the_index(opener):
    """Neither as a term nor as a posting nor as a document's terms."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        made = await store.add_message("a", "user", "a secretword of ann")
        await store.search_messages("secretword")
        await store.erase_message(made.id)
        for table in ("text_terms", "text_postings", "text_documents"):
            assert await store.execute(f"select * from {table}") == []


async def test_a_fork_finds_what_it_shares_and_what_it_adds(opener):
    """Not what the other one added after the fork; a deleted source's messages are found through the fork."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="source")
        shared = await store.add_message("source", "user", "zebra shared")
        await store.fork_conversation("source", 1, "fork")
        await store.add_message("source", "user", "zebra source")
        await store.add_message("fork", "user", "zebra fork")
        await store.fork_conversation("fork", 2, "second")

        async def seen(**scope):
            hits = await store.search_messages("zebra", **scope)
            return sorted((hit.message.conversation_id, hit.message.text) for hit in hits)

        assert await seen(conversation_id="source") == [("source", "zebra shared"), ("source", "zebra source")]
        assert await seen(conversation_id="fork") == [("fork", "zebra fork"), ("fork", "zebra shared")]
        assert await seen(conversation_id="second") == [("second", "zebra fork"), ("second", "zebra shared")]
        assert await seen() == [("fork", "zebra fork"), ("source", "zebra shared"), ("source", "zebra source")]
        await store.delete_conversation("source")
        assert await seen() == [("fork", "zebra fork"), ("fork", "zebra shared")]
        assert await seen(conversation_id="source") == []
        await store.edit_message(shared.id, "zebra changed")
        assert await seen() == [("fork", "zebra changed"), ("fork", "zebra fork")]


# -- queries ---------------------------------------------------------------------------------------------------------------


async def test_a_query_without_words_that_count_finds_nothing(opener):
    """Stop words, punctuation, emoji, blanks."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        await store.add_message("a", "user", "the and of ... !!! 🙂 zebra")
        for query in ("the and of", "", "   ", "...", "🙂", '"', "***"):
            assert await store.search_messages(query) == [], query


async def test_operators_of_search_engines_mean_nothing(opener):
    """Quotes, wildcards, NEAR, column filters and SQL are words or nothing at all."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        made = await store.add_message("a", "user", "zebra crossing")
        plain = await store.search_messages("zebra")
        for query in (
            '"zebra', "zebra*", "^zebra", "(zebra", "zebra)", "-zebra", "body:zebra", "{zebra", "zebra'", "zebra\\",
            "zebra'; drop table messages; --", "%zebra%", ":zebra", "zebra:*", "zebra & | !", "!zebra", "<-> zebra", "%(x)s zebra ?",
        ):  # fmt: skip
            hits = await store.search_messages(query)
            assert [hit.message.id for hit in hits] == [made.id], query
            assert hits == plain, query
        for query in ("zebra NEAR crossing", "zebra AND crossing", "zebra <-> crossing", "crossing OR zebra"):
            assert len(await store.search_messages(query)) == 1


async def test_a_query_that_is_not_text_is_invalid(opener):
    """NUL, lone surrogates, other types; too long is over the limit; many words are not."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        await store.add_message("a", "user", "w1")
        for query in ("a\0b", "\ud800", 5, None, ["zebra"]):
            with pytest.raises(Invalid) as refused:
                await store.search_messages(query)
            assert refused.value.field == "query"
        with pytest.raises(OverLimit):
            await store.search_messages("x" * 16_385)
        assert len(await store.search_messages(" ".join(f"w{n}" for n in range(2_000)))) == 1


async def test_limits(opener):
    """0 is empty, 1,000 is the most, and other things are refused."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        await store.add_messages("a", [{"role": "user", "content": "zebra"}] * 30)
        assert await store.search_messages("zebra", limit=0) == []
        assert len(await store.search_messages("zebra")) == 10
        assert len(await store.search_messages("zebra", limit=1)) == 1
        assert len(await store.search_messages("zebra", limit=1_000)) == 30
        with pytest.raises(OverLimit):
            await store.search_messages("zebra", limit=1_001)
        for limit in (-1, True, 1.5, "3"):
            with pytest.raises(Invalid):
                await store.search_messages("zebra", limit=limit)
        for scope in ({"user_id": " "}, {"conversation_id": ""}):
            with pytest.raises(Invalid):
                await store.search_messages("zebra", **scope)


async def test_a_word_of_most_messages_does_not_push_out_rarer_hits(opener, monkeypatch):
    """Candidates hold the rarest words first, up to a cap, newest first within a word."""
    monkeypatch.setattr(texts, "CANDIDATES", 10)
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="a")
        rare = await store.add_messages("a", [{"role": "user", "content": f"common zebra {n}"} for n in range(3)])
        many = await store.add_messages("a", [{"role": "user", "content": f"common {n}"} for n in range(40)])
        hits = await store.search_messages("common zebra", limit=3)
        assert {hit.message.id for hit in hits} == {message.id for message in rare}
        hits = await store.search_messages("common zebra", limit=20)
        assert {hit.message.id for hit in hits[:3]} == {message.id for message in rare}
        assert {hit.message.id for hit in hits[3:]} == {message.id for message in many[-7:]}


# -- catching up -----------------------------------------------------------------------------------------------------------


@on_postgres
async def test_a_message_just_committed_is_found_while_another_transaction_is_open(opener):
    """And what that one commits later is found then."""
    async with opener() as store, opener() as other:
        await store.create_conversation("agent", "ann", id="a")
        await store.create_conversation("agent", "bob", id="b")
        async with await psycopg.AsyncConnection.connect(opener.url) as holder:
            await holder.execute("select pg_current_xact_id()")
            made = await store.add_message("a", "user", "zebra one")
            assert [hit.message for hit in await store.search_messages("zebra")] == [made]
            async with other.transaction() as t:
                late = await t.add_message("b", "user", "zebra late")
                after = await store.add_message("a", "user", "zebra two")
                found = {hit.message.id for hit in await store.search_messages("zebra")}
                assert found == {made.id, after.id}
            assert len(await store.search_messages("zebra")) == 3
        assert len(await store.search_messages("zebra")) == 3
        await _assert_exact(
            store, {"ann": {made.id: "zebra one", after.id: "zebra two"}, "bob": {late.id: "zebra late"}}
        )


@on_postgres
async def test_what_commits_between_two_batches_is_not_skipped(opener):
    """An entry with a lower number that appears behind a batch is taken by the next search."""
    async with opener() as store, opener() as other:
        await store.create_conversation("agent", "ann", id="a")
        await store.create_conversation("agent", "bob", id="b")
        await store.absorb_text()
        async with other.transaction() as t:
            await t.add_message("b", "user", "zebra late")
            for number in range(5):
                await store.add_message("a", "user", f"zebra {number}")
            cursor = await _run(store, texts.absorb(None, text_of, 2))
        while cursor is not None:
            cursor = await _run(store, texts.absorb(cursor, text_of, 2))
        assert len(await store.search_messages("zebra")) == 6


async def _run(store, op):
    blocking = getattr(store, "_store", None)
    return await store._run(op) if blocking is None else blocking._run(op)


async def test_the_index_built_anew_gives_the_same_answers(opener, seeded_random):
    """``rebuild_text`` loses nothing, also after the index was partly or wholly lost."""
    async with opener() as store:
        await _fill(store, seeded_random)
        queries = [_sentence(seeded_random) for _ in range(5)]

        async def answers():
            return [await store.search_messages(query, limit=100) for query in queries]

        before = await answers()
        assert any(before)
        await store.rebuild_text()
        assert await answers() == before
        for lost in (("text_documents",), ("text_postings", "text_totals"), ("text_terms",), _TABLES):
            for table in lost:
                await store.execute(f"delete from {table}")
            await store.rebuild_text()
            assert await answers() == before
        for table in _TABLES:
            await store.execute(f"delete from {table}")
        assert await answers() == before  # without an index at all, the next search builds it


_TABLES = ("text_documents", "text_postings", "text_terms", "text_totals", "text_progress", "text_scopes")


async def _assert_exact(store, corpora):
    """The index holds what the living messages say, no more and no less; corpora is {user: {id: text}}."""
    ids = dict(await store.execute("select id, ord from messages where state = 0"))
    scopes = dict(await store.execute("select user_id, scope from text_scopes"))
    documents, postings, terms, totals = [], [], Counter(), {}
    for user, corpus in corpora.items():
        for name, text in corpus.items():
            words = analyse(text)
            documents.append((ids[name], scopes[user], len(words), rank.pack_terms(words)))
            for scope in (scopes[user], 0):
                terms.update((scope, word) for word in set(words))
                total = totals.setdefault(scope, [0, 0])
                total[0] += 1
                total[1] += len(words)
            postings += [(word, scopes[user], ids[name]) for word in set(words)]
    assert sorted(await store.execute("select doc, scope, length, terms from text_documents")) == sorted(documents)
    assert sorted(await store.execute("select term, scope, doc from text_postings")) == sorted(postings)
    counted = await store.execute("select scope, term, documents from text_terms")
    assert {(scope, term): number for scope, term, number in counted} == dict(terms)
    summed = await store.execute("select scope, documents, length from text_totals where documents <> 0 or length <> 0")
    assert {scope: [number, length] for scope, number, length in summed} == totals


async def test_counters_are_exact_after_any_changes(opener, seeded_random):
    """Terms, postings and totals equal what the living messages say."""
    async with opener() as store:
        corpus = await _fill(store, seeded_random, messages=120)
        await store.absorb_text()
        await _assert_exact(store, {user: _joined(*own.values()) for user, own in corpus.items()})


async def test_two_may_absorb_at_the_same_time(opener):
    """Searches in two processes meet at the same news; each message is counted once."""
    async with opener() as one, opener() as two:
        await one.create_conversation("agent", "ann", id="a")
        texts_of = {}
        for round_number in range(4):
            drafts = [{"role": "user", "content": f"zebra {round_number} {n}"} for n in range(30)]
            texts_of |= {message.id: message.text for message in await one.add_messages("a", drafts)}
            changed = next(iter(texts_of))
            texts_of[changed] = f"giraffe {round_number}"
            both = [
                started(one, "absorb_text"), started(two, "absorb_text"),
                started(two, "edit_message", changed, texts_of[changed]), started(one, "search_messages", "zebra"),
            ]  # fmt: skip
            await asyncio.gather(*both)
        await two.absorb_text()
        await _assert_exact(one, {"ann": texts_of})
