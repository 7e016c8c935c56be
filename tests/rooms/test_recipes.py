"""Recipes stepped by hand, without a database: what they ask, in which order, and what they make of the answers."""

import pytest

from perdure.grammar import (
    Ask,
    Mode,
    Op,
    Scope,
    StartOver,
    asking,
    execute,
    execute_many,
    fetch_all,
    fetch_one,
    fetch_value,
    merged_runs,
    note,
    op,
    outcomes_of,
    together,
)  # fmt: skip
from perdure.rooms.changes import ops as changes
from perdure.rooms.chores import ops as chores
from perdure.rooms.conversations import messages, ops
from perdure.rooms.conversations.prepare import prepare
from perdure.rooms.conversations.values import metadata_of
from perdure.rooms.keys import ops as keys
from perdure.rooms.texts import ops as texts
from perdure.values import rank
from perdure.values.errors import ChecksumMismatch, Conflict, Invalid, NotFound

NOW = 1_700_000_000_000_000
DAY = NOW // 86_400_000_000


def conversation_row(ord=1, id="c", *, next_seq=1, count=0, version=1, inherits=0):
    """A row of the conversation's columns."""
    return (ord, id, "agent", "ann", "{}", NOW, NOW, NOW, next_seq, count, 0, 0, 0, 0, version, inherits)


def message_row(seq=1, id="m", body="text", *, ord=10, conversation=1, version=1, usage=(None,) * 5, live=1):
    """A row of the message's columns with its conversation's."""
    return (
        ord, conversation, seq, id, "user", None, body, 0, None, *usage[:3], usage[3], usage[4], None, NOW, version, "c", "ann",
        "agent", live,
    )  # fmt: skip


def draft(content="text", id="m", **more):
    """A checked message."""
    return prepare("user", content, NOW, id=id, **more)


def play(recipe, *script):
    """What a recipe answers when asked exactly these (name, answer) in this order, and the questions it asked."""
    steps = recipe.start() if isinstance(recipe, Op) else recipe
    asked = []
    answer = None
    for name, reply in script:
        ask = steps.send(answer)
        asked.append(ask)
        names = [one.name for one in ask.asks] if ask.mode is Mode.TOGETHER else ask.name
        assert names == name
        answer = reply
    with pytest.raises(StopIteration) as stop:
        steps.send(answer)
    return stop.value.value, asked


def refused(recipe, *script):
    """The error with which a recipe ends after these questions."""
    steps = recipe.start() if isinstance(recipe, Op) else recipe
    answer = None
    for name, reply in script:
        assert steps.send(answer).name == name
        answer = reply
    with pytest.raises((Conflict, Invalid, NotFound, StartOver, ChecksumMismatch)) as error:
        steps.send(answer)
    return error.value


# -- the grammar ---------------------------------------------------------------------------------------------------------------


def test_each_way_to_ask_yields_one_question():
    """With its mode, name and parameters; nothing else happens."""
    assert next(fetch_all("a.b", x=1)) == Ask(Mode.ALL, "a.b", {"x": 1})
    assert next(fetch_one("a.b", flags=frozenset({"f"}))) == Ask(Mode.ONE, "a.b", {}, frozenset({"f"}))
    assert next(fetch_value("a.b")) == Ask(Mode.ONE, "a.b", {})
    assert next(execute("a.b", x=None)) == Ask(Mode.RUN, "a.b", {"x": None})
    assert next(execute_many("a.b", [{"x": 1}])) == Ask(Mode.MANY, "a.b", {}, rows=[{"x": 1}])
    assert list(execute_many("a.b", [])) == []
    one, two = asking("a.b"), asking("a.c", x=1)
    assert next(together(one, two)) == Ask(Mode.TOGETHER, "", {}, asks=(one, two))
    assert next(note("message", "add", "m", "c", NOW)).params == {
        "kind": "message", "verb": "add", "object": "m", "parent": "c", "now": NOW,
    }  # fmt: skip
    assert play(fetch_value("a.b"), ("a.b", None))[0] is None
    assert play(fetch_value("a.b"), ("a.b", (7, 8)))[0] == 7


def test_an_op_can_be_started_again():
    """Each run is fresh, and one inside another becomes a part of it."""

    @op
    def inner(value):
        row = yield from fetch_one("a.inner", value=value)
        return row[0] + value

    @op(reads=True)
    def outer():
        return (yield from inner(2)) * 10

    recipe = outer()
    assert recipe.traits.reads
    for answer in (1, 5):
        assert play(recipe, ("a.inner", (answer,)))[0] == (answer + 2) * 10
    assert repr(recipe) == "Op(outer)"


def test_jobs_that_can_be_merged_are_those_of_one_kind_and_scope_in_a_row():
    """Nothing overtakes anything."""
    append = messages.append("c", [draft()], NOW)
    other = ops.get("c")
    ann, bob = Scope("t", "ann"), Scope("t", "bob")
    jobs = [(append, ann), (append, ann), (other, ann), (append, ann), (append, bob), (append, bob)]
    assert list(merged_runs(jobs)) == [[0, 1], [2], [3], [4, 5]]
    assert list(merged_runs([])) == []
    error = NotFound("x")
    assert outcomes_of([1, error]) == [(1, None), (None, error)]


# -- appending -------------------------------------------------------------------------------------------------------------------


def test_appending_step_by_step():
    """The seq is taken first, with the totals; then row and entry go together; then the report."""
    usage = {"input_tokens": 3, "output_tokens": 4, "model": "m1", "cost": "0.5"}
    steps = messages.append("c", [draft(token_usage=usage, metadata={"k": 1})], NOW).start()
    ask = next(steps)
    assert (ask.mode, ask.name) == (Mode.ONE, "conversations.take_seqs")
    assert ask.params == {
        "id": "c", "count": 1, "input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "cost": 500_000_000,
        "latest": NOW, "now": NOW,
    }  # fmt: skip
    ask = steps.send((5, 9, "ann", "agent"))
    assert [one.name for one in ask.asks] == ["conversations.add_message", "changes.note"]
    row, entry = (one.params for one in ask.asks)
    assert (row["conversation"], row["seq"], row["id"], row["body"], row["model"]) == (5, 9, "m", "text", "m1")
    assert entry == {"kind": "message", "verb": "add", "object": "m", "parent": "c", "now": NOW}
    ask = steps.send([1, 1])
    assert ask.name == "conversations.add_to_report"
    assert ask.params == {
        "user_id": "ann", "agent_id": "agent", "model": "m1", "day": DAY, "messages": 1, "input_tokens": 3,
        "output_tokens": 4, "total_tokens": 7, "cost": 500_000_000,
    }  # fmt: skip
    with pytest.raises(StopIteration) as stop:
        steps.send(1)
    (message,) = stop.value.value
    assert (message.id, message.seq, message.conversation_id, message.text) == ("m", 9, "c", "text")
    assert message.metadata == {"k": 1}


def test_appending_to_what_is_not_there():
    """Nothing is written after the first question."""
    error = refused(messages.append("c", [draft()], NOW), ("conversations.take_seqs", None))
    assert isinstance(error, NotFound)
    assert error.details["field"] == "conversation_id"


def test_appends_that_wait_together_take_conversations_in_order_of_id():
    """One question for each conversation, one insert for all rows; an unknown conversation fails alone."""
    waiting = [
        messages.Appending("b", [draft("1", "m1")], NOW),
        messages.Appending("a", [draft("2", "m2", token_usage={"input_tokens": 1})], NOW),
        messages.Appending("none", [draft("3", "m3")], NOW),
        messages.Appending("b", [draft("4", "m4"), draft("5", "m5")], NOW),
    ]
    steps = messages.append_each(waiting).start()
    ask = next(steps)
    assert [(one.name, one.params["id"], one.params["count"]) for one in ask.asks] == [
        ("conversations.take_seqs", "a", 1), ("conversations.take_seqs", "b", 3), ("conversations.take_seqs", "none", 1),
    ]  # fmt: skip
    ask = steps.send([(1, 7, "ann", "agent"), (2, 1, "bob", "agent"), None])
    asked = {}
    with pytest.raises(StopIteration) as stop:
        while True:
            for one in ask.asks or (ask,):
                asked[one.name] = one
            ask = steps.send([None] * len(ask.asks) if ask.mode is Mode.TOGETHER else None)
    placed = [(row["conversation"], row["seq"], row["id"]) for row in asked["conversations.add_message"].rows]
    assert sorted(placed) == [(1, 7, "m2"), (2, 1, "m1"), (2, 2, "m4"), (2, 3, "m5")]
    assert sorted(row["object"] for row in asked["changes.note"].rows) == ["m1", "m2", "m4", "m5"]
    answers = stop.value.value
    assert isinstance(answers[2], NotFound)
    assert [[(m.id, m.seq) for m in answer] for answer in (answers[0], answers[1], answers[3])] == [
        [("m1", 1)], [("m2", 7)], [("m4", 2), ("m5", 3)],
    ]  # fmt: skip


# -- reading ---------------------------------------------------------------------------------------------------------------------


def test_a_page_asks_for_one_more_than_it_shows():
    """So it knows whether there is more."""
    rows = [message_row(seq, f"m{seq}") for seq in (1, 2, 3)]
    (found, more), asked = play(
        messages.page("c", 1, None, 2, False, ["user"]),
        ("conversations.by_id", conversation_row(next_seq=6)), ("conversations.messages", rows),
    )  # fmt: skip
    assert ([message.seq for message in found], more) == ([1, 2], True)
    assert asked[1].flags == {"ascending", "roles"}
    assert asked[1].params == {"conversation": 1, "low": 1, "high": 5, "limit": 3, "roles": ["user"]}


def test_a_page_of_an_unknown_conversation_is_empty():
    """After one question."""
    answer, _ = play(messages.page("c", 1, None, 2, False, None), ("conversations.by_id", None))
    assert answer == ([], False)


def test_a_fork_is_read_segment_by_segment_and_backwards_from_its_end():
    """Only as many segments as it takes."""
    fork = conversation_row(9, "f", next_seq=8, inherits=5)
    own = [message_row(seq, f"m{seq}", conversation=9) for seq in (7, 6)]
    shared = [message_row(seq, f"m{seq}", conversation=2) for seq in (5, 4)]
    (found, more), asked = play(
        messages.page("f", 1, None, 3, True, None),
        ("conversations.by_id", fork), ("conversations.segments", [(1, 1, 2), (2, 3, 5)]),
        ("conversations.messages", own), ("conversations.messages", shared),
    )  # fmt: skip
    assert ([message.seq for message in found], more) == ([5, 6, 7], True)
    assert [(ask.params["conversation"], ask.params["low"], ask.params["high"], ask.params["limit"]) for ask in asked[2:]] == [
        (9, 6, 7, 4), (2, 3, 5, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        [message_row(1), message_row(1)], [message_row(2), message_row(1)], [message_row(1, conversation=7)],
    ],
    ids=["doubled", "swapped", "another conversation's"],
)  # fmt: skip
def test_rows_out_of_place_are_damage(rows):
    """A page of the file that was doubled or swapped is not passed on."""
    error = refused(
        messages.page("c", 1, None, 5, False, None),
        ("conversations.by_id", conversation_row(next_seq=3)), ("conversations.messages", rows),
    )  # fmt: skip
    assert isinstance(error, ChecksumMismatch)


# -- changing --------------------------------------------------------------------------------------------------------------------


def _edit(expected_version=None, usage=None):
    return messages.edit("m", lambda old: draft(f"{old.text}!", token_usage=usage), expected_version, NOW)


def test_editing_keeps_the_version_first_and_corrects_the_totals():
    """Old usage out, new usage in, one entry."""
    before = message_row(usage=(1, 2, 3, "m1", 40))
    _, asked = play(
        _edit(1, {"input_tokens": 5, "model": "m2"}),
        ("conversations.message", before), ("conversations.keep_version", 1), ("conversations.rewrite", 1),
        ("conversations.add_totals", 1), ("conversations.add_to_report", 1), ("conversations.add_to_report", 1),
        ("changes.note", 1), ("conversations.message", message_row(body="text!", version=2)),
    )  # fmt: skip
    assert asked[0].flags == {"locked"}
    assert asked[2].params["body"] == "text!"
    totals = asked[3].params
    assert {name: totals[name] for name in ("messages", "input_tokens", "output_tokens", "total_tokens", "cost", "seq")} == {
        "messages": 0, "input_tokens": 4, "output_tokens": -2, "total_tokens": 2, "cost": -40, "seq": 1,
    }  # fmt: skip
    assert [(ask.params["model"], ask.params["messages"], ask.params["total_tokens"]) for ask in asked[4:6]] == [
        ("m1", -1, -3), ("m2", 1, 5),
    ]  # fmt: skip
    assert asked[6].params == {"kind": "message", "verb": "edit", "object": "m", "parent": "c", "now": NOW}


def test_editing_what_is_not_there_or_was_changed_meanwhile():
    """Asks nothing more."""
    assert isinstance(refused(_edit(), ("conversations.message", None)), NotFound)
    error = refused(_edit(expected_version=2), ("conversations.message", message_row(version=3)))
    assert isinstance(error, Conflict)
    assert (error.details["field"], "3" in error.message) == ("expected_version", True)


def test_an_edit_that_is_refused_writes_nothing():
    """What the caller's change raises comes out before the first write."""

    def change(old):
        raise Invalid("no", field="content")

    steps = messages.edit("m", change, None, NOW).start()
    next(steps)
    with pytest.raises(Invalid):
        steps.send(message_row())


def test_deleting_and_erasing_what_is_not_there():
    """Not found, after one question."""
    assert isinstance(refused(messages.delete("m", NOW), ("conversations.message", None)), NotFound)
    assert isinstance(refused(messages.erase("m", NOW, "erased:1"), ("conversations.any_message", None)), NotFound)
    gone = ops.delete("c", NOW, erase=False, pseudonym="deleted:1")
    assert isinstance(refused(gone, ("conversations.by_id", None), ("conversations.by_id", None)), NotFound)


def test_updating_a_conversation_that_was_changed_meanwhile():
    """Conflict, after one question."""
    error = refused(
        ops.update("c", metadata_of({"title": "t"}), 1, NOW), ("conversations.by_id", conversation_row(version=2))
    )
    assert isinstance(error, Conflict)
    assert isinstance(refused(ops.update("c", metadata_of(None), None, NOW), ("conversations.by_id", None)), NotFound)


# -- creating and forking ----------------------------------------------------------------------------------------------------------


def test_creating_inserts_row_labels_and_entry():
    """The labels by the number of the row that was made."""
    new = ops.NewConversation(
        "c", "agent", "ann", metadata_of({"title": "Straße", "tags": ["b", "a"], "participants": ["p"]}), NOW
    )
    answer, asked = play(
        ops.create(new, NOW),
        ("conversations.create", 1), ("conversations.by_id", conversation_row(7)), ("conversations.label", None),
        ("changes.note", 1), ("conversations.by_id", conversation_row(7)),
    )  # fmt: skip
    assert answer.id == "c"
    assert asked[0].params["title"] == "strasse"
    assert {(row["kind"], row["label"], row["conversation"]) for row in asked[2].rows} == {
        ("tag", "a", 7), ("tag", "b", 7), ("participant", "p", 7),
    }  # fmt: skip
    assert asked[3].params["verb"] == "create"


def test_creating_what_is_there():
    """Conflict, and no entry."""
    new = ops.NewConversation("c", "agent", "ann", metadata_of(None), NOW)
    assert isinstance(refused(ops.create(new, NOW), ("conversations.create", 0)), Conflict)


def test_forking_copies_no_message():
    """It sums what it shares and writes which seqs it reads from whom."""
    source = conversation_row(3, "s", next_seq=11, count=10)
    answer, asked = play(
        ops.fork("s", 4, "f", None, NOW),
        ("conversations.by_id", source), ("conversations.by_id", source), ("conversations.segment_sums", (4, 1, 2, 3, 40, NOW - 5)),
        ("conversations.create", 1), ("changes.note", 1), ("conversations.by_id", conversation_row(8, "f", next_seq=5, inherits=4)),
        ("conversations.add_segment", None),
    )  # fmt: skip
    assert answer.id == "f"
    created = asked[3].params
    assert (created["next_seq"], created["inherits"], created["message_count"], created["total_tokens"]) == (5, 4, 4, 3)
    assert asked[4].params["verb"] == "fork"
    assert asked[6].rows == [{"conversation": 8, "source": 3, "low_seq": 1, "high_seq": 4}]


@pytest.mark.parametrize("at_seq", [11, 12, -1])
def test_forking_beyond_the_last_message(at_seq):
    """Invalid, and it names the highest."""
    source = conversation_row(3, "s", next_seq=11)
    error = refused(
        ops.fork("s", at_seq, "f", None, NOW), ("conversations.by_id", source), ("conversations.by_id", source)
    )
    assert isinstance(error, Invalid)
    assert (error.field, error.details["limit"]) == ("at_seq", 10)


# -- once ----------------------------------------------------------------------------------------------------------------------------


@op
def _made():
    yield from execute("a.make")
    return "made"


@op
def _again(ids):
    row = yield from fetch_one("a.read", ids=ids)
    return row and row[0]


def _once(content="digest"):
    return keys.once("verb", "key", content, NOW, _made(), lambda made: [made], _again)


def test_a_new_key_is_taken_before_anything_is_made():
    """And what was made is kept with it."""
    answer, asked = play(_once(), ("keys.answered", None), ("keys.take", 1), ("a.make", 1), ("keys.remember", 1))
    assert answer == "made"
    assert asked[1].params["expires_at"] == NOW + 24 * 3_600_000_000
    assert asked[3].params["answer"] == '["made"]'


def test_a_known_key_answers_as_the_first_time():
    """Nothing is made again."""
    answer, asked = play(_once(), ("keys.answered", ("digest", '["made"]')), ("a.read", ("made",)))
    assert answer == "made"
    assert asked[1].params == {"ids": ["made"]}


def test_a_key_with_other_content_or_whose_creation_is_gone():
    """Conflict, with nothing made."""
    assert "other content" in str(refused(_once("other"), ("keys.answered", ("digest", '["made"]'))))
    gone = refused(_once(), ("keys.answered", ("digest", '["made"]')), ("a.read", None))
    assert isinstance(gone, Conflict)
    assert "deleted" in str(gone)


def test_a_key_that_another_call_uses_at_this_moment():
    """Its answer counts when there is one by now; else the recipe begins again."""
    kept = ("digest", '["made"]')
    answer, _ = play(_once(), ("keys.answered", None), ("keys.take", 0), ("keys.answered", kept), ("a.read", ("made",)))
    assert answer == "made"
    assert isinstance(refused(_once(), ("keys.answered", None), ("keys.take", 0), ("keys.answered", None)), StartOver)


# -- the text index ------------------------------------------------------------------------------------------------------------------


def _news(position, settled=1, doc=None, version=1, body="zebra", *, tx=0, state=0):
    return (position, tx, settled, doc, version, state, body, 0, "ann", 5)


def _text_of(body, form):
    return body


def test_absorbing_takes_each_message_once_and_moves_the_cursor():
    """The last state of a message counts; one that is known in this version, or not living, is passed over."""
    news = [
        _news(1), _news(2, doc=10, body="zebra zebra"), _news(3, doc=11), _news(4, doc=12, state=1), _news(5, doc=13, version=2),
        _news(6, doc=10, body="zebra zebra"),
    ]  # fmt: skip
    known = [(11, 1, 1, 1, " zebra:1 "), (13, 1, 1, 2, " old:2 ")]
    answer, asked = play(
        texts.absorb(None, _text_of),
        ("texts.hold", (0, 0)), ("texts.news", news), ("texts.documents", known), ("texts.scopes", [("ann", 1)]),
        ("texts.drop_documents", 1), ("texts.drop_posting", None), ("texts.add_document", None), ("texts.add_posting", None),
        ("texts.count_terms", 1), ("texts.drop_empty_terms", 1), ("texts.count_documents", 1), ("texts.count_documents", 1),
        ("texts.advance", 1),
    )  # fmt: skip
    assert answer is None
    assert asked[4].params == {"docs": [13]}
    assert [(row["doc"], row["version"], row["terms"]) for row in asked[6].rows] == [
        (10, 1, " zebra:2 "),
        (13, 2, " zebra:1 "),
    ]
    assert asked[8].params["counts"] == '[[0, "old", -1], [0, "zebra", 2], [1, "old", -1], [1, "zebra", 2]]'
    assert [(ask.params["scope"], ask.params["documents"], ask.params["length"]) for ask in asked[10:12]] == [
        (0, 1, 1),
        (1, 1, 1),
    ]
    assert asked[12].params == {"tx": 0, "position": 6}


def test_absorbing_does_not_move_past_what_may_still_be_preceded():
    """It is taken early all the same, and looked at again the next time."""
    answer, asked = play(
        texts.absorb(None, _text_of),
        ("texts.hold", (7, 1)), ("texts.news", [_news(2, tx=8), _news(3, 0, tx=9), _news(4, 1, tx=9)]), ("texts.advance", 1),
    )  # fmt: skip
    assert answer is None
    assert asked[1].params["tx"] == 7
    assert asked[2].params == {"tx": 8, "position": 2}


def test_a_batch_behind_an_unsettled_one_moves_nothing():
    """What commits behind it later would be skipped."""
    answer, asked = play(
        texts.absorb((9, 3), _text_of, 1), ("texts.hold", (7, 1)), ("texts.news", [_news(5, tx=10)])
    )  # fmt: skip
    assert answer == (10, 5)
    assert (asked[1].params["tx"], asked[1].params["position"]) == (9, 3)


def test_another_may_have_absorbed_further_meanwhile():
    """Then it is gone on from there."""
    answer, asked = play(texts.absorb((9, 3), _text_of), ("texts.hold", (20, 1)), ("texts.news", []))
    assert answer is None
    assert (asked[1].params["tx"], asked[1].params["position"]) == (20, 1)


def test_absorbing_for_the_first_time_starts_the_cursor():
    """Whoever comes first."""
    answer, _ = play(
        texts.absorb(None, _text_of),
        ("texts.hold", None), ("texts.start", 1), ("texts.hold", (0, 0)), ("texts.news", []),
    )  # fmt: skip
    assert answer is None


def test_forgetting_nothing_asks_nothing_more_than_it_must():
    """No document, no question; unknown documents, no change."""
    assert play(texts.forget([]))[0] is None
    play(texts.forget([10]), ("texts.hold", (0, 0)), ("texts.documents", []))


def _search(terms=("rare", "common"), user=None, conversation=None, limit=2):
    return texts.search(list(terms), user, conversation, limit, rank.Bm25())


def test_searching_asks_for_the_rarest_word_first_and_skips_the_common_one():
    """When the rare ones give enough."""
    documents = [(1, 1, 1, 2, " common:1 rare:1 "), (2, 1, 1, 3, " rare:3 ")]
    found = [(*message_row(1, "m1", ord=1)[:17], "c", 1), (*message_row(2, "m2", ord=2)[:17], "c", 1)]
    hits, asked = play(
        _search(),
        ("texts.totals", (10, 50)), ("texts.frequencies", [("common", 9), ("rare", 2)]), ("texts.holding", [(1,), (2,)]),
        ("texts.documents", documents), ("texts.found", found),
    )  # fmt: skip
    assert [hit.row[3] for hit in hits] == ["m2", "m1"]
    assert hits[0].score > hits[1].score > 0
    assert asked[2].params == {"term": "rare", "scope": 0, "limit": texts.CANDIDATES}
    assert asked[2].flags == frozenset()


def test_searching_for_words_nobody_used_ends_early():
    """Also for a user who never said anything, or a conversation that is somebody else's."""
    assert play(_search(), ("texts.totals", (10, 50)), ("texts.frequencies", []))[0] == []
    assert play(_search(user="bob"), ("texts.scopes", []), ("texts.totals", None), ("texts.frequencies", []))[0] == []
    assert play(_search(conversation="c"), ("texts.conversation", None))[0] == []
    assert play(_search(user="bob", conversation="c"), ("texts.conversation", (5, 0, 9, "ann")))[0] == []


def test_a_hit_of_a_deleted_conversation_shows_a_fork_that_reads_it():
    """One that no fork reads any more is left out."""
    found = [(*message_row(1, "m1", ord=1)[:17], "gone", 0), (*message_row(2, "m2", ord=2)[:17], "gone", 0)]
    hits, _ = play(
        _search(("rare",)),
        ("texts.totals", (10, 50)), ("texts.frequencies", [("rare", 2)]), ("texts.holding", [(1,), (2,)]),
        ("texts.documents", [(1, 1, 1, 1, " rare:1 "), (2, 1, 1, 1, " rare:1 ")]), ("texts.found", found),
        ("texts.reader_of", ("fork",)), ("texts.reader_of", None),
    )  # fmt: skip
    assert [(hit.row[3], hit.conversation_id) for hit in hits] == [("m1", "fork")]


# -- feed and chores -------------------------------------------------------------------------------------------------------------------


def test_the_feed_asks_from_its_cursor_on():
    """And gives each entry the cursor after it."""
    row = (7, 3, "message", "add", "m", "c", "ann", "why", NOW)
    found, asked = play(changes.since((3, 6), ["message"], 5), ("changes.since", [row]))
    assert (found[0].cursor, found[0].object_id, found[0].actor) == ("3.7", "m", "ann")
    assert asked[0].params == {"tx": 3, "position": 6, "limit": 5, "kinds": ["message"]}
    assert asked[0].flags == {"kinds"}
    assert play(changes.latest(), ("changes.latest", None))[0] == "0.0"
    assert play(changes.latest(), ("changes.latest", (7, 3)))[0] == "3.7"


def test_a_lease_is_taken_or_not():
    """It tells when the tenant last had news; 0 is a time like any other."""
    for row, news_at in ((None, None), ((0,), 0), ((7,), 7)):
        taken, asked = play(chores.lease("x", "me", NOW), ("chores.lease", row))
        assert taken == news_at
        assert asked[0].params["lease_until"] == NOW + 300_000_000
    assert play(chores.finish("x", "me", 0, NOW, NOW + 1, "ok"), ("chores.finish", 0))[0] is False
