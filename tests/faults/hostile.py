"""Strings that have broken other programs, and every public parameter that takes one."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from perdure.values.errors import Refused

MEGABYTE = 1024 * 1024
SECRET = "lighthouse-secret"
SEEDS = [
    # SQL
    "'", '"', "''", "\\'", "';--", "' or '1'='1", "' or 1=1 --", "'; drop table messages; --", '"; select 1; --',
    "1; select 1",
    "x' union select id, body from messages --", "/* */", "--", "$$", "$1", "%s", "%(tenant)s", ":tenant", "?", "?1",
    "@p", "#p",
    "null", "NULL", "true", "0", "-1", "1e999", "NaN", "Infinity", "0x10", "{where}", "{conversation}", "{columns}",
    "default", "public",
    "'||(select body from messages limit 1)||'", "E'\\x41'", "U&'\\0041'", "`id`", "[id]", "tenant = 'other'",
    "or tenant='other'",
    "')) or 1=1 --", "; attach database '/tmp/x' as y", "pg_sleep(10)", "randomblob(1000000000)",
    "load_extension('x')", "pragma x",
    # LIKE, GLOB and regular expressions
    "%", "_", "%%", "%secret%", "*", "[a-z]*", "^.*$", "(a+)+$", "\\", "\\\\", "\\%", "\\_", "a%b_c", "[^", "?*[",
    # full text: FTS5 and tsquery
    "lighthouse*", "NEAR(a b)", "a AND b", "a OR", "NOT", "AND", '"unclosed', "col:word", "{a b}:c", "a & b | !c",
    "a <-> b", ":*",
    "a:*B", "!", "&&", "||", "( )", "((((", "'a' <2> 'b'", "^word", "+a -b", "-secret", "lighthouse or secret",
    # JSON and JSON paths
    "$", "$.", "$.*", "$[*]", "$.a.b", '$."a"', "$[0]", "$[#-1]", "{}", "[]", '{"a": 1}', '"', '{"$ne": null}', "$ne",
    "$where", "$or", "$datetime",
    "$.tenant", "a.b.c", "a..b", ".", "..", "metadata.x", "metadata", "context", "__proto__", "constructor",
    "__class__", "'a'->>'b'", "@.a", "$.a ? (@ > 1)",
    # look-alikes and odd characters of Unicode
    "ａdmin", "аnn", "ann\u200b", "\u200bann", "ann\u0301", "Å", "A\u030a", "ﬁ", "ſ", "ß", "SS", "İ", "ı", "K",
    "\u202eevil", "\ufeff", "\ufeffann", "👩\u200d👩\u200d👧",
    "\U0010ffff", "\ufffd", "\ufffe", "\uffff", "\u0085", "\u2028", "\u00a0", "\u3000", "ann ", " ann", "ANN", "Ann",
    "a\tb", "a\nb", "a\r\nb", "\x01", "\x1f", "\x7f", "\x1b[31m",
    "日本語", "العربية", "e\u0301" * 50, "\u0300" * 200,
    # what no engine can hold
    "\0", "a\0b", "ann\0", "\ud800", "a\udfffb", "\udcff",
    # paths, templates, logs
    "../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "C:\\x", "${HOME}", "{{7*7}}", "%n%n%n", "{0.__class__}",
    "<script>alert(1)</script>", "\r\nSet-Cookie: x=1",
    # blank and long
    "", " ", "\t\n", "x" * 512, "x" * 513, "é" * 256, "é" * 257, "x" * 70_000,
]  # fmt: skip
LONG = [
    "x" * MEGABYTE,
    "é" * (MEGABYTE // 2),
    "' or 1=1 --" * 95_000,
    "\0" * MEGABYTE,
    "(" * MEGABYTE,
    "a b " * (MEGABYTE // 4),
]


def strings(number: int, rng: random.Random) -> Iterator[str]:
    """The seeds, then mixtures of them, and now and then a megabyte."""
    for index in range(number):
        if index < len(SEEDS):
            yield SEEDS[index]
        elif index % 97 == 0:
            yield LONG[index // 97 % len(LONG)]
        else:
            parts = rng.choices(SEEDS[:-4], k=rng.randint(2, 4))
            yield rng.choice(("", " ", "\t", "ann", "'")).join(part[: rng.choice((3, 20, 500))] for part in parts)


class Called:
    """What a call did: ``refused`` with a code, or an answer; for some an exact round trip to be checked."""

    def __init__(self, outcome: str, wrong: str = "") -> None:
        self.outcome = outcome
        self.wrong = wrong


Parameter = Callable[[Any, str, int], Any]
"""Uses a string as one parameter. It answers pairs (what was given, what came back) or things that were found."""


def _same(given: Any, back: Any) -> list[tuple[Any, Any]]:
    return [(given, back)]


def _made(s: Any, **given: Any) -> Any:
    return s.create_conversation(**{"agent_id": "agent", "user_id": "ann", **given})


def _read(s: Any, made: Any) -> Any:
    return s.get_conversation(made.id)


def _told(s: Any, text: Any = "words", **given: Any) -> Any:
    return s.get_message(s.add_message("open", "user", text, **given).id)


def _updated(s: Any, context: Any) -> Any:
    return s.update_conversation("open", {"context": context})


def _by_user(s: Any, x: str) -> list[tuple[Any, Any]]:
    return [(x, one.user_id) for one in s.query_conversations(user_id=x)]


def _by_agent(s: Any, x: str) -> list[tuple[Any, Any]]:
    return [(x, one.agent_id) for one in s.query_conversations(agent_id=x)]


def _with_context(s: Any, value: Any) -> list[tuple[Any, Any]]:
    return _same(value, _read(s, _made(s, metadata={"context": value})).metadata.context)


def _query(s: Any, filters: Any) -> Any:
    return s.query_conversations(user_id="ann", filters=filters)


def _tags(s: Any, x: str) -> list[tuple[Any, Any]]:
    made = _read(s, _made(s, metadata={"tags": [x]}))
    found = s.query_conversations(user_id="ann", filters={"tags": [x]}, limit=1_000)
    return [((x,), made.metadata.tags), (True, made.id in {one.id for one in found})]


def _title(s: Any, x: str) -> list[tuple[Any, Any]]:
    made = _read(s, _made(s, metadata={"title": x}))
    found = s.query_conversations(user_id="ann", filters={"title_contains": x}, limit=1_000)
    return [(x, made.metadata.title), (True, made.id in {one.id for one in found} or len(found) == 1_000)]


def _participant(s: Any, x: str) -> list[tuple[Any, Any]]:
    _made(s, metadata={"participants": [x]})
    found = s.query_conversations(user_id="ann", filters={"participant": x}, limit=1_000)
    return [(True, all(x in one.metadata.participants for one in found) and len(found) > 0)]


def _context_value(s: Any, x: str) -> list[tuple[Any, Any]]:
    _made(s, metadata={"context": {"k": x}})
    found = s.query_conversations(user_id="ann", filters={"context": {"k": x}}, limit=1_000)
    return [(x, one.metadata.context["k"]) for one in found] + [(True, len(found) > 0)]


def _context_key(s: Any, x: str) -> list[tuple[Any, Any]]:
    made = _made(s, metadata={"context": {x: "v"}})
    back = _same({x: "v"}, _read(s, made).metadata.context)
    if x.startswith("$") or not x:
        return back
    found = s.query_conversations(user_id="ann", filters={"context": {"$and": [{x: "v"}]}}, limit=1_000)
    return back + [(True, x in one.metadata.context or "." in x) for one in found]


def _tenant(s: Any, x: str) -> list[tuple[Any, Any]]:
    handle = s.for_tenant(x)
    if x in {"default", "other"}:
        return []
    made = handle.create_conversation("agent", "ann", {"title": x})
    seen = {one.id for one in handle.query_conversations(limit=1_000)}
    outside = (
        made.id in {one.id for one in s.query_conversations(limit=1_000)} or s.get_conversation(made.id) is not None
    )
    return [(x, handle.tenant), (True, made.id in seen), (False, outside), (None, handle.get_conversation("secret"))]


def _key(s: Any, x: str) -> list[tuple[Any, Any]]:
    first = s.add_message("open", "user", "words", idempotency_key=x)
    return _same(first, s.add_message("open", "user", "words", idempotency_key=x))


def _fork(s: Any, x: str, n: int) -> list[tuple[Any, Any]]:
    return _same(f"{n}{x}", s.fork_conversation("open", 1, f"{n}{x}").id)


def _ensured(s: Any, x: str, n: int) -> list[tuple[Any, Any]]:
    s.ensure_conversation(f"{n}e{x}", "agent", x)
    s.add_message(f"{n}e{x}", "user", "words")
    return _same(x, s.get_conversation(f"{n}e{x}").user_id)


def _actor(s: Any, x: str) -> list[tuple[Any, Any]]:
    s.acting_as(x, x).create_conversation("agent", "ann")
    (change,) = s.changes(s.latest_change_before)  # set by the test: the feed's end before this call
    return [(x, change.actor), (x, change.reason)]


def _version(s: Any, x: str) -> list[tuple[Any, Any]]:
    made = s.add_message("open", "user", "words")
    return _same(x, s.edit_message(made.id, x).content) + _same("words", s.message_history(made.id)[0].content)


def _flushed(s: Any, x: str) -> list[tuple[Any, Any]]:
    drafts = [{"role": "user", "content": x}]
    made = s.create_conversation("agent", "ann")
    added = s.flush(made.id, drafts)
    return _same(x, added[0].content) + _same([], s.flush(made.id, drafts))


PARAMETERS: dict[str, Parameter] = {
    "create agent_id": lambda s, x, n: _same(x, _read(s, _made(s, agent_id=x)).agent_id),
    "create user_id": lambda s, x, n: _same(x, _read(s, _made(s, user_id=x)).user_id),
    "create id": lambda s, x, n: _same(f"{x}{n}", _read(s, _made(s, id=f"{x}{n}")).id),
    "create bare id": lambda s, x, n: _same(x, (s.get_conversation(x) or _made(s, id=x)).id),
    "create created_at": lambda s, x, n: _made(s, created_at=x),
    "metadata title": lambda s, x, n: _title(s, x),
    "metadata tags": lambda s, x, n: _tags(s, x),
    "metadata participants": lambda s, x, n: _participant(s, x),
    "metadata field": lambda s, x, n: _made(s, metadata={x: 1}),
    "metadata context key": lambda s, x, n: _context_key(s, x),
    "metadata context value": lambda s, x, n: _context_value(s, x),
    "metadata nested": lambda s, x, n: _with_context(s, {"a": [{x: [x, {"b": x}]}]}),
    "update metadata": lambda s, x, n: _same({"v": x}, _updated(s, {"v": x}).metadata.context),
    "ensure": _ensured,
    "idempotency_key": lambda s, x, n: _key(s, x),
    "add conversation_id": lambda s, x, n: s.add_message(x, "user", "words"),
    "add role": lambda s, x, n: s.add_message("open", x, "words"),
    "add content": lambda s, x, n: _same(x, _told(s, x).content),
    "add content part": lambda s, x, n: _same(x, _told(s, [{"type": "text", "text": x}]).content[0].text),
    "add part type": lambda s, x, n: _told(s, [{"type": x, "text": "a"}]),
    "add name": lambda s, x, n: _same(x, _told(s, name=x).name),
    "add metadata key": lambda s, x, n: _same({x: 1}, _told(s, metadata={x: 1}).metadata),
    "add metadata value": lambda s, x, n: _same({"v": x}, _told(s, metadata={"v": x}).metadata),
    "add id": lambda s, x, n: _same(f"{x}{n}", _told(s, id=f"{x}{n}").id),
    "add parent_id": lambda s, x, n: _same(x, _told(s, parent_id=x).parent_id),
    "add created_at": lambda s, x, n: s.add_message("open", "user", "words", created_at=x),
    "usage model": lambda s, x, n: _same(x, _told(s, token_usage={"input_tokens": 1, "model": x}).token_usage.model),
    "usage field": lambda s, x, n: _told(s, token_usage={"input_tokens": 1, x: 1}),
    "usage cost": lambda s, x, n: _told(s, token_usage={"input_tokens": 1, "cost": x}),
    "edit content": lambda s, x, n: _version(s, x),
    "edit message_id": lambda s, x, n: s.edit_message(x, "words"),
    "delete message_id": lambda s, x, n: s.delete_message(x),
    "erase message_id": lambda s, x, n: s.erase_message(x),
    "delete conversation_id": lambda s, x, n: s.delete_conversation(f"-{x}"),
    "erase conversation_id": lambda s, x, n: s.erase_conversation(f"-{x}"),
    "history message_id": lambda s, x, n: s.message_history(x),
    "get conversation_id": lambda s, x, n: [(x, one.id) for one in [s.get_conversation(x, True)] if one],
    "get message_id": lambda s, x, n: [(x, one.id) for one in [s.get_message(x)] if one],
    "get_messages conversation_id": lambda s, x, n: [(x, one.conversation_id) for one in s.get_messages(x)],
    "get_messages before": lambda s, x, n: s.get_messages("open", before=x, limit=5),
    "get_messages after": lambda s, x, n: s.get_messages("open", after=x, limit=5),
    "get_messages roles": lambda s, x, n: s.get_messages("open", roles=[x]),
    "context_window": lambda s, x, n: s.context_window(x, 100),
    "fork new_id": _fork,
    "fork source": lambda s, x, n: s.fork_conversation(f"-{x}", 0),
    "flush content": lambda s, x, n: _flushed(s, x),
    "query user_id": lambda s, x, n: _by_user(s, x),
    "query agent_id": lambda s, x, n: _by_agent(s, x),
    "query order_by": lambda s, x, n: s.query_conversations(user_id="ann", order_by=x),
    "query cursor": lambda s, x, n: s.query_conversations(user_id="ann", cursor=x),
    "query filter name": lambda s, x, n: _query(s, {x: 1}),
    "query created_after": lambda s, x, n: _query(s, {"created_after": x}),
    "query any_tags": lambda s, x, n: _query(s, {"any_tags": [x]}),
    "query participant": lambda s, x, n: _query(s, {"participant": x}),
    "query title_contains": lambda s, x, n: _query(s, {"title_contains": x}),
    "query context field": lambda s, x, n: _query(s, {"context": {x: {"$exists": True}}}),
    "query context operator": lambda s, x, n: _query(s, {"context": {"k": {x: 1}}}),
    "query context $in": lambda s, x, n: _query(s, {"context": {"k": {"$in": [x, "b"]}}}),
    "query context $contains": lambda s, x, n: _query(s, {"context": {"k": {"$contains": x}}}),
    "query context $gt": lambda s, x, n: _query(s, {"context": {"k": {"$gt": x}}}),
    "search query": lambda s, x, n: s.search_messages(x, user_id="ann"),
    "search user_id": lambda s, x, n: s.search_messages("lighthouse", user_id=f"{x}-"),
    "search conversation_id": lambda s, x, n: s.search_messages("lighthouse", conversation_id=f"{x}-"),
    "report group": lambda s, x, n: s.token_report(x),
    "report user_id": lambda s, x, n: [(x, one.user_id) for one in s.token_report("user_id", user_id=x)],
    "report model": lambda s, x, n: [(x, one.model) for one in s.token_report("model", model=x)],
    "report since": lambda s, x, n: s.token_report(since=x),
    "report until": lambda s, x, n: s.token_report(until=x),
    "trail object_id": lambda s, x, n: s.trail("conversation", x),
    "trail kind": lambda s, x, n: s.trail(x, "open"),
    "transaction timeout": lambda s, x, n: s.transaction(x).__enter__(),
    "changes since": lambda s, x, n: s.changes(x, limit=5),
    "changes kinds": lambda s, x, n: [(x, one.kind) for one in s.changes(kinds=[x], limit=5)],
    "actor": lambda s, x, n: _actor(s, x),
    "tenant": lambda s, x, n: _tenant(s, x),
}  # fmt: skip


def use(store: Any, name: str, text: str, number: int) -> Called:
    """Uses ``text`` as the parameter and says what happened; ``wrong`` is what must never be."""
    try:
        answer = PARAMETERS[name](store, text, number)
    except Refused as error:
        wrong = "" if SECRET not in str(error) else "the secret is in the error"
        return Called(error.code, wrong)
    except Exception as error:
        return Called("error", f"{type(error).__name__}: {str(error)[:200]}")
    if isinstance(answer, list) and answer and isinstance(answer[0], tuple):
        for given, back in answer:
            if given != back:
                return Called("answered", f"gave {repr(given)[:80]}, came back {repr(back)[:80]}")
    if SECRET in repr(answer) and SECRET not in text:
        return Called("answered", f"a secret came out: {repr(answer)[:200]}")
    return Called("answered")
