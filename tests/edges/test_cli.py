"""The ``perdure`` command as its users meet it: answers, pipes, errors, exit codes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_tools import ESCAPE, answer, call, process, quiet, terminal, without_escapes
from typer.testing import CliRunner

import perdure.sync
from perdure.cli.main import app
from perdure.schema.plan import steps


@pytest.fixture(autouse=True)
def quiet_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test in a folder of its own, with nothing of the developer's terminal."""
    quiet(monkeypatch, tmp_path)


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """A store with two conversations, in the place where the command looks by itself."""
    url = f"sqlite:///{tmp_path / 'perdure.db'}"
    with perdure.sync.open(url) as store:
        metadata = {"title": "Trip to Lisbon", "tags": ["travel", "work"], "participants": ["Ann"]}
        store.create_conversation("planner", "ann", metadata, id="trip")
        store.add_message("trip", "user", "I am allergic to peanuts.", name="Ann")
        store.add_message(
            "trip", "assistant",
            [{"type": "text", "text": "Noted."}, {"type": "tool_call", "id": "c1", "name": "save", "arguments": '{"a":1}'}],
            token_usage={"input_tokens": 100, "output_tokens": 20, "model": "large", "cost": "0.0012"},
        )  # fmt: skip
        store.add_message("trip", "tool", [{"type": "tool_result", "tool_call_id": "c1", "content": "saved"}])
        store.create_conversation("coder", "bob", {"title": "Flaky test"}, id="bug")
        store.add_message("bug", "user", "Why does the build fail?")
    return url


# -- the command itself -------------------------------------------------------------------------------------------------


def test_help_loads_neither_engine_nor_rich():
    code = (
        "import sys; import perdure.cli.main; "
        "print([m for m in ('rich', 'apsw', 'psycopg', 'perdure.sync.store', 'Stemmer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_command_and_the_exit_codes():
    result = call("--help")
    assert result.exit_code == 0
    names = "demo init import export conversations checkpoints search stats delete erase doctor chores bench schema"
    for name in names.split():
        assert f"  {name} " in result.stdout
    assert "Exit codes" in result.stdout


def test_the_command_alone_prints_its_help():
    alone = call()
    assert alone.exit_code == 0
    assert alone.stdout == call("--help").stdout
    assert alone.stderr == ""


def test_a_shell_can_complete_the_names_of_commands():
    asked = {"_PERDURE_COMPLETE": "complete_bash", "COMP_WORDS": "perdure ", "COMP_CWORD": "1"}
    completed = CliRunner().invoke(app, prog_name="perdure", env=asked)
    assert {"demo", "search", "erase"} <= set(completed.stdout.split())
    assert "Usage" not in completed.stdout


def test_version():
    assert call("--version").stdout == f"perdure {perdure.__version__}\n"


def test_unknown_commands_and_options_exit_with_2():
    assert call("bogus").exit_code == 2
    assert call("stats", "--bogus").exit_code == 2
    assert call("search").exit_code == 2
    for words in (("bogus",), ("stats", "--bogus"), ("search",), ("conversations", "-n", "x"), ("--tenant",)):
        assert call(*words).stderr.startswith("Usage: "), words


@pytest.mark.parametrize("words", [
    ("--json", "bogus"), ("stats", "--bogus", "--json"), ("--json", "search"), ("conversations", "-n", "x", "--json"),
    ("conversations", "show", "--json"), ("--json", "--bogus"), ("--json",),
])  # fmt: skip
def test_a_wrong_command_line_with_json_is_an_object_on_stderr(words: tuple[str, ...]):
    result = call(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "refused.invalid"
    assert error["message"]
    assert error["hint"].endswith(" --help shows its options")


def test_a_search_for_the_word_json_is_no_wish_for_json(store_url: str):
    assert call("search", "-n", "x", "--", "--json").stderr.startswith("Usage: ")


@pytest.mark.parametrize("words", [("--tenant", ""), ("-t", "  "), ("--url", ""), ("-u", " ")])
@pytest.mark.parametrize("command", ["stats", "init", "doctor", "demo"])
def test_an_empty_tenant_or_address_is_refused(store_url: str, words: tuple[str, str], command: str):
    for line in ((*words, command), (command, *words)):
        result = call(*line)
        assert result.exit_code == 2, line
        assert result.stdout == ""
        assert "Traceback" not in result.stderr


def test_an_empty_tenant_does_not_fall_back_to_one_that_stands_before(store_url: str):
    result = call("--tenant", "default", "stats", "--tenant", "")
    assert result.exit_code == 2
    assert "tenant" in result.stderr


def test_the_default_store_is_named_on_stderr_only(store_url: str):
    result = call("stats")
    assert "Store: sqlite:///perdure.db" in result.stderr
    assert "Store" not in result.stdout


def test_perdure_url_is_used_and_named_without_its_password(store_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PERDURE_URL", "postgresql://ann:secret@127.0.0.1:1/db")
    monkeypatch.setattr("perdure.cli.common.CONNECT_SECONDS", 0.2)
    result = call("stats")
    assert result.exit_code == 3
    assert "from PERDURE_URL" in result.stderr
    assert "secret" not in result.stderr


def test_url_wins_over_perdure_url_and_is_not_announced(store_url: str):
    result = call("stats", "--url", store_url, env={"PERDURE_URL": "sqlite:///other.db"})
    assert result.exit_code == 0
    assert "Store:" not in result.stderr
    assert not Path("other.db").exists()


def test_common_options_stand_before_or_after_the_command(store_url: str):
    after = answer("conversations", "show", "trip")
    before = call("--json", "-u", store_url, "conversations", "show", "trip")
    between = call("conversations", "--json", "show", "trip")
    assert json.loads(before.stdout) == after == json.loads(between.stdout)


def test_a_tenant_sees_its_own(store_url: str):
    assert answer("stats", "--tenant", "other")["stats"]["messages"] == 0
    assert answer("stats")["stats"]["messages"] == 4


# -- errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [
    ("stats",), ("conversations",), ("conversations", "show", "x"), ("search", "x"), ("doctor",), ("chores",), ("export",),
])  # fmt: skip
def test_reading_makes_no_store(words: tuple[str, ...]):
    result = call(*words)
    assert result.exit_code == 2
    assert "perdure: there is no store at perdure.db\nhint: perdure init" in result.stderr
    assert not list(Path().iterdir())


def test_reading_makes_no_tables():
    Path("empty.db").touch()
    result = call("-u", "sqlite:///empty.db", "stats")
    assert result.exit_code == 4
    assert "perdure init" in result.stderr


def test_a_refusal_is_one_line_and_a_hint(store_url: str):
    result = call("-u", store_url, "conversations", "show", "nope")
    assert result.exit_code == 2
    assert result.stderr == "perdure: there is no conversation 'nope'\nhint: perdure conversations lists them\n"
    assert result.stdout == ""


def test_debug_shows_where_an_error_comes_from(store_url: str):
    result = call("-u", store_url, "conversations", "show", "nope", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("hint: perdure conversations lists them\n")


def test_an_error_with_json_is_an_object_on_stderr(store_url: str):
    result = call("-u", store_url, "conversations", "--limit", "5000", "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "refused.over_limit"
    assert error["details"]["limit"] == 1000


def test_damage_exits_with_4():
    Path("torn.db").write_bytes(b"no database at all" * 400)
    result = call("-u", "sqlite:///torn.db", "stats")
    assert result.exit_code == 4
    assert "Traceback" not in result.stderr


def test_a_missing_extra_exits_with_5():
    code = (
        "import sys; sys.modules['psycopg'] = None; sys.modules['psycopg_pool'] = None; "
        "sys.argv = ['perdure', '-u', 'postgresql://h/db', 'stats']; from perdure.cli.main import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_causes_no_traceback(store_url: str):
    with perdure.sync.open(store_url) as store:
        store.add_messages("trip", [{"role": "user", "content": "word " * 200}] * 300)
    command = [sys.executable, "-m", "perdure.cli.main", "conversations", "show", "trip"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "Trip to Lisbon\n"
        child.stdout.close()
        assert "Traceback" not in child.stderr.read()


# -- commands -----------------------------------------------------------------------------------------------------------


def test_init_makes_a_store_once():
    assert answer("init") == {
        "store": "sqlite:///perdure.db",
        "outcome": "made",
        "schema_version": len(steps("sqlite")),
    }
    assert answer("init")["outcome"] == "ready already"
    assert answer("stats")["stats"]["conversations"] == 0


def test_init_gives_an_empty_file_its_schema():
    Path("perdure.db").touch()
    assert answer("init")["outcome"] == "brought up to date"
    assert call("stats").exit_code == 0


def test_schema_prints_the_sql_of_either_engine_and_opens_nothing():
    from perdure.schema.plan import schema_script

    of_postgres = schema_script("postgres", "perdure")
    assert call("schema").stdout == schema_script("sqlite", "perdure")
    assert call("schema", "--engine", "postgres").stdout == of_postgres
    assert answer("schema", "-u", "postgresql://h/db") == {"engine": "postgres", "sql": of_postgres}
    assert not list(Path().iterdir())


def test_conversations_filter_and_page(store_url: str):
    def ids(*words: str) -> list[str]:
        return [one["id"] for one in answer("conversations", *words)["conversations"]]

    assert ids() == ["bug", "trip"]
    assert ids("--order", "message_count") == ["trip", "bug"]
    assert ids("--ascending") == ["trip", "bug"]
    assert ids("--user", "ann") == ["trip"]
    assert ids("--agent", "coder") == ["bug"]
    assert ids("--tag", "travel", "--tag", "work") == ["trip"]
    assert ids("--tag", "travel", "--tag", "home") == []
    assert ids("--title", "lisbon") == ["trip"]
    first = answer("conversations", "-n", "1")
    assert ids("-n", "1", "--cursor", first["next_cursor"]) == ["trip"]


def test_conversations_as_a_table(store_url: str):
    lines = call("conversations").stdout.splitlines()
    assert re.sub(r"\s+", " ", lines[0]) == "ID TITLE USER AGENT MESSAGES TOKENS COST LATEST (UTC)"
    assert re.match(r"trip  Trip to Lisbon  ann   planner  +3 +120  0\.0012  \d{4}-\d\d-\d\d \d\d:\d\d$", lines[2])
    assert not any(line.endswith(" ") for line in lines)


def test_an_untitled_conversation_is_listed_by_how_its_user_began(store_url: str):
    with perdure.sync.open(store_url) as store:
        for number, text in enumerate(("How high\nis the tower?", "word " * 40, "字" * 100), 1):
            store.create_conversation("a", "u", id=f"plain{number}")
            store.add_message(f"plain{number}", "system", "Be brief.")
            store.add_message(f"plain{number}", "user", text)
        store.create_conversation("a", "u", id="empty")
    lines = {line.split()[0]: line for line in call("conversations").stdout.splitlines()}
    assert ' "How high is the tower?" ' in lines["plain1"]
    assert f' "{" ".join(["word"] * 12)}…" ' in lines["plain2"]
    assert f' "{"字" * 60}…" ' in lines["plain3"]
    assert '"' not in lines["trip"] + lines["empty"]
    assert {one["metadata"].get("title") for one in answer("conversations", "--user", "u")["conversations"]} == {None}


def test_an_empty_list_says_why(store_url: str):
    assert call("conversations", "--limit", "0").stdout == "None shown: --limit is 0.\n"
    assert call("conversations", "--user", "nobody").stdout == "No conversation fits.\n"
    assert call("conversations", "--tenant", "new").stdout == "No conversations yet.\n"


def test_an_empty_tool_result_says_so(store_url: str):
    with perdure.sync.open(store_url) as store:
        calls = [{"type": "tool_call", "id": f"e{place}", "name": "wipe", "arguments": "{}"} for place in (1, 2, 3)]
        store.add_message("bug", "assistant", calls)
        results = [
            {"type": "tool_result", "tool_call_id": "e1", "content": ""},
            {"type": "tool_result", "tool_call_id": "e2", "content": "", "is_error": True},
            {"type": "tool_result", "tool_call_id": "e3", "content": [
                {"type": "file", "kind": "image", "data": "aGk=", "media_type": "image/png"},
            ]},
        ]  # fmt: skip
        store.add_message("bug", "tool", results)
    text = call("conversations", "show", "bug").stdout
    assert "\n      <- wipe: (nothing)\n      <- wipe failed: (nothing)\n      <- wipe: (no text)\n" in text


def test_a_timeline_tells_who_said_what(store_url: str):
    text = call("conversations", "show", "trip").stdout
    assert text.startswith("Trip to Lisbon\nid      trip\nuser    ann\nagent   planner\n")
    assert "3 messages, 120 tokens, cost 0.0012" in text
    assert re.search(r"\n   1  user  Ann · \d\d:\d\d:\d\d\n      I am allergic to peanuts\.\n", text)
    assert re.search(r"\n   2  assistant  [\d:]+ · large · 120 tokens \(100 in, 20 out\) · cost 0\.0012\n", text)
    assert '\n      Noted.\n      -> save {"a":1}\n' in text
    assert "\n      <- save: saved\n" in text


def test_a_timeline_of_many_pages_is_whole(store_url: str):
    with perdure.sync.open(store_url) as store:
        store.add_messages("bug", [{"role": "user", "content": f"line {number}"} for number in range(2, 451)])
    text = call("conversations", "show", "bug").stdout
    assert re.findall(r"^ *(\d+)  user", text, re.MULTILINE) == [str(seq) for seq in range(1, 451)]
    newest = call("conversations", "show", "bug", "--last", "2").stdout
    assert re.findall(r"^ *(\d+)  user", newest, re.MULTILINE) == ["449", "450"]
    assert len(answer("conversations", "show", "bug")["messages"]) == 450


def test_long_messages_are_shortened_unless_asked_for(store_url: str):
    with perdure.sync.open(store_url) as store:
        store.add_message("bug", "user", "\n".join(f"line {number}" for number in range(100)))
    short, full = (call("conversations", "show", "bug", *words).stdout for words in ((), ("--full",)))
    assert "line 11\n" in short
    assert "line 12\n" not in short
    assert "88 more lines" in short
    assert "line 99\n" in full


def test_export_and_import_give_everything_back(store_url: str):
    exported = call("export").stdout
    assert [json.loads(line)["type"] for line in exported.splitlines()].count("message") == 4
    report = answer("export", "all.jsonl")
    assert report == {"conversations": 2, "messages": 4, "bytes": len(exported.encode())}
    assert Path("all.jsonl").read_text(encoding="utf-8") == exported
    other = ("-u", "sqlite:///other.db")
    assert call(*other, "import", "all.jsonl").stdout.startswith("Imported 2 conversations with 4 messages in ")
    assert call(*other, "export").stdout == exported
    again = json.loads(call(*other, "--json", "import", "all.jsonl").stdout)
    assert (again["conversations"], again["messages"], again["skipped"], again["broken"]) == (0, 0, 4, 0)
    assert call("export", "--user", "bob").stdout.count('"type":"message"') == 1


def test_import_reads_standard_input_and_other_formats():
    question, reply = {"role": "user", "content": "How high is it?"}, {"role": "assistant", "content": "2 m"}
    line = json.dumps({"messages": [question, reply]}) + "\n"
    result = CliRunner().invoke(app, ["import", "-"], input=line)
    assert result.exit_code == 2
    assert "hint: say whose conversations they are with --user" in result.stderr
    result = CliRunner().invoke(app, ["import", "-", "--user", "ann", "--format", "openai", "--json"], input=line)
    assert json.loads(result.stdout)["messages"] == 2
    assert [one["user_id"] for one in answer("conversations")["conversations"]] == ["ann"]


def test_broken_lines_are_named_by_their_numbers(store_url: str):
    lines = call("export").stdout.splitlines()
    lines.insert(1, "{broken")
    lines.insert(3, '{"type":"message","conversation_id":"trip","role":"nobody","content":"x"}')
    Path("half.jsonl").write_text("\n".join(lines), encoding="utf-8")
    other = ("-u", "sqlite:///other.db")
    result = call(*other, "import", "half.jsonl")
    assert result.exit_code == 2
    assert result.stderr.startswith("2 lines could not be loaded:\n  line 2: ")
    assert "\n  line 4: " in result.stderr
    assert "\nperdure: line 2: " in result.stderr
    assert result.stderr.endswith("; nothing was loaded\nhint: mend them, or load the rest with --skip-broken\n")
    assert json.loads(call(*other, "stats", "--json").stdout)["stats"]["messages"] == 0
    failed = call(*other, "import", "half.jsonl", "--json")
    assert [one["line"] for one in json.loads(failed.stderr)["error"]["details"]["errors"]] == [2, 4]
    loaded = call(*other, "import", "half.jsonl", "--skip-broken")
    assert loaded.exit_code == 0
    assert loaded.stdout.startswith("Imported 2 conversations with 4 messages")
    assert loaded.stderr.startswith("2 lines could not be loaded:\n  line 2: ")


def chat(*texts: str) -> str:
    """A line of OpenAI's form, without an id."""
    return json.dumps({"messages": [{"role": "user", "content": text} for text in texts]}) + "\n"


def test_the_same_chats_can_be_imported_for_two_users_and_two_agents():
    Path("chats.jsonl").write_text(chat("How high is it?") + chat("And how old?"), encoding="utf-8")
    for words in (("--user", "ann"), ("--user", "bob"), ("--user", "bob", "--agent", "guide")):
        report = answer("import", "chats.jsonl", *words)
        assert (report["conversations"], report["messages"], report["skipped"]) == (2, 2, 0), words
    again = answer("import", "chats.jsonl", "--user", "ann")
    assert (again["conversations"], again["messages"], again["skipped"]) == (0, 0, 2)
    found = answer("conversations")["conversations"]
    assert sorted((one["user_id"], one["agent_id"]) for one in found) == sorted(
        [("ann", "openai"), ("bob", "openai"), ("bob", "guide")] * 2
    )


def test_a_chat_of_somebody_else_is_refused_once():
    record = json.loads(chat(*(f"line {number}" for number in range(50)))) | {"id": "talk"}
    Path("chat.json").write_text(json.dumps(record), encoding="utf-8")
    assert answer("import", "chat.json", "--user", "ann")["messages"] == 50
    refused = call("import", "chat.json", "--user", "bob", "-u", "sqlite:///perdure.db")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(
        "perdure: line 1: conversation 'talk' is there and belongs to another user or agent"
    )
    assert refused.stderr.count("line 1") == 1
    loaded = answer("import", "chat.json", "--user", "bob", "--skip-broken")
    assert (loaded["broken"], len(loaded["errors"])) == (1, 1)


def test_lines_that_are_broken_alike_are_told_of_together(store_url: str):
    lines = call("export").stdout.splitlines()
    strange = '{"type":"message","conversation_id":"nowhere","role":"user","content":"x"}'
    Path("odd.jsonl").write_text("\n".join([strange, "{a", *lines, "{b", strange, strange]), encoding="utf-8")
    result = call("-u", "sqlite:///other.db", "import", "odd.jsonl", "--skip-broken")
    assert result.exit_code == 0
    told = result.stderr.splitlines()
    assert told[0] == "5 lines could not be loaded:"
    assert told[1] == "  lines 1, 10-11: there is no conversation 'nowhere'"
    assert told[2].startswith("  lines 2, 9: not JSON: ")
    assert len(told) == 3


def test_a_file_that_is_no_history_is_said_to_be_none_once():
    Path("poem.txt").write_text("Shall I compare thee\nto a summer's day?\n\nThou art\n" * 60, encoding="utf-8")
    result = call("-u", "sqlite:///other.db", "import", "poem.txt")
    assert result.exit_code == 2
    first, hint = result.stderr.splitlines()
    assert re.match(r"perdure: lines 1-2, 4-6, 8-10, .*\.\.\. and 80 more: not JSON: .*; nothing was loaded$", first)
    assert hint == "hint: a history is JSON Lines or one JSON document"


def test_files_that_cannot_be_read_or_written_are_refused(store_url: str):
    missing = call("import", "nowhere.jsonl")
    assert missing.exit_code == 2
    assert missing.stderr.endswith("perdure: No such file or directory: nowhere.jsonl\n")
    assert call("import", ".").exit_code == 2
    unwritable = call("export", "no/such/folder.jsonl")
    assert unwritable.exit_code == 2
    assert unwritable.stderr.endswith("perdure: there is no folder no/such to write to\n")


def test_search_shows_the_place_that_matches(store_url: str):
    text = call("search", "peanut", "allergic").stdout
    assert re.search(r"trip #1  user Ann · .* · score \d+\.\d\d\n  I am «allergic» to «peanuts»\.\n", text)
    found = answer("search", "peanut", "--limit", "1")
    assert found["query"] == "peanut"
    assert found["hits"][0]["message"]["conversation_id"] == "trip"
    assert answer("search", "peanut", "--user", "bob")["hits"] == []
    assert answer("search", "build", "--conversation", "bug")["hits"][0]["message"]["seq"] == 1
    assert call("search", "zebra").stdout == "Nothing matches 'zebra'.\n"
    nowhere = call("-u", store_url, "search", "hi", "--conversation", "nope")
    assert nowhere.exit_code == 2
    assert nowhere.stderr == "perdure: there is no conversation 'nope'\nhint: perdure conversations lists them\n"


def test_marks_in_stored_text_are_not_taken_for_matches(store_url: str):
    with perdure.sync.open(store_url) as store:
        store.add_message("bug", "user", "The **zebra** is **bold**.")
    assert "The **«zebra»** is **bold**.\n" in call("search", "zebra").stdout


@pytest.mark.parametrize("verb", ["delete", "erase"])
def test_what_is_to_be_gone_is_gone_with_yes(store_url: str, verb: str):
    with perdure.sync.open(store_url) as store:
        message_id = store.get_messages("trip")[0].id
    assert answer(verb, "message", message_id, "--yes") == {f"{verb}d": "message", "id": message_id}
    assert [one["seq"] for one in answer("conversations", "show", "trip")["messages"]] == [2, 3]
    with perdure.sync.open(store_url) as store:
        assert bool(store.message_history(message_id)) is (verb == "delete")
    done = call(verb, "conversation", "trip", "-y")
    assert done.stdout == f"Conversation trip is {verb}d.\n"
    assert [one["id"] for one in answer("conversations")["conversations"]] == ["bug"]
    again = call(verb, "conversation", "trip", "-y")
    assert again.exit_code == 2
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize("verb", ["delete", "erase"])
def test_nothing_goes_unasked(store_url: str, verb: str):
    for words in ((), ("--json",)):
        result = call("-u", store_url, verb, "conversation", "trip", *words)
        assert result.exit_code == 2
        assert "--yes does it unasked" in result.stderr
    assert call(verb, "tenant", "trip", "--yes").stderr.startswith("Usage: ")
    assert len(answer("conversations")["conversations"]) == 2


@pytest.mark.parametrize(
    ("reply", "code", "left"), [("y", 0, ["bug"]), ("n", 2, ["bug", "trip"]), ("", 2, ["bug", "trip"])]
)
def test_a_terminal_is_asked_before_something_goes(store_url: str, reply: str, code: int, left: list[str]):
    shown = terminal("erase", "conversation", "trip", typed=f"{reply}\n", code=code)
    assert "Conversation trip 'Trip to Lisbon' of user ann: 3 messages" in without_escapes(shown)
    assert "Erase it? This cannot be undone. [y/N]" in without_escapes(shown)
    assert [one["id"] for one in answer("conversations")["conversations"]] == left


def test_stats_account_by_model_day_user_and_agent(store_url: str):
    found = answer("stats")
    assert (found["stats"]["conversations"], found["stats"]["tokens"], found["stats"]["cost"]) == (2, 120, "0.0012")
    assert [(row["model"], row["token_usage"]["cost"]) for row in found["by_model"]] == [("large", "0.0012")]
    assert [row["user_id"] for row in found["by_user_id"]] == ["ann"]
    assert answer("stats", "--user", "bob")["by_model"] == []
    assert answer("stats", "--until", "2020-01-01")["by_day"] == []
    text = call("stats").stdout
    assert re.search(r"  MODEL  MESSAGES  INPUT  OUTPUT  TOKENS    COST\n  large +1 +100 +20 +120  0\.0012\n", text)


def test_doctor_finds_totals_that_do_not_add_up(store_url: str):
    assert answer("doctor")["problems"] == []
    healthy = call("doctor").stdout
    assert healthy.startswith("No problems found.\n")
    assert "chore ever ran" not in healthy
    with perdure.sync.open(store_url) as store:
        store.execute("update conversations set message_count = 7 where id = 'trip'")
    assert len(answer("doctor", code=1)["problems"]) == 1
    result = call("doctor")
    assert result.exit_code == 1
    assert "1 problem found:\n- the totals or seqs of conversation 'trip' do not add up\n" in result.stdout


def test_advice_is_no_problem(empty_postgres_url: str):
    assert call("-u", empty_postgres_url, "init").exit_code == 0
    found = call("-u", empty_postgres_url, "doctor", "--json")
    report = json.loads(found.stdout)
    assert (found.exit_code, report["problems"]) == (0, [])
    assert report["advice"] == ["fsync is off: a power failure can lose everything"]
    text = call("-u", empty_postgres_url, "doctor").stdout
    assert text.startswith("No problems found.\n")
    assert text.endswith("\nAdvice:\n- fsync is off: a power failure can lose everything\n")


def test_doctor_repairs_what_is_derived(store_url: str):
    assert answer("search", "peanut")["hits"]
    with perdure.sync.open(store_url) as store:
        store.execute("delete from text_postings")
    assert answer("search", "peanut")["hits"] == []
    assert answer("doctor", "--repair")["repaired"] == ["text index"]
    assert len(answer("search", "peanut")["hits"]) == 1


def test_chores_run_what_is_due(store_url: str):
    assert "text_index" in answer("chores")["ran"]
    assert answer("chores") == {"ran": []}
    assert call("chores").stdout == "Nothing is due.\n"


def test_chores_run_for_every_tenant(store_url: str):
    """Or for the one that is named; what is overdue shows in the counts and makes the doctor say so."""
    with perdure.sync.open(store_url) as store:
        store.run_chores()
        for number in range(4):
            store.for_tenant(f"t{number}").create_conversation("agent", "ann")
    assert answer("--tenant", "t3", "chores") == {"ran": ["idempotency", "text_index"]}
    assert call("chores").stdout == "Done: idempotency (3 tenants), text_index (3 tenants).\n"
    with perdure.sync.open(store_url) as store:
        store.execute("update chores set due_at = 1, outcome = 'failed: test' where name = 't1/text_index'")
    assert "1 chore; perdure doctor names them" in call("stats").stdout
    assert answer("stats", "--tenant", "t2")["stats"]["overdue_chores"] == 0
    told = " ".join(call("doctor").stdout.split())
    assert "chore t1/text_index is overdue since 1970" in told
    assert "1 failed, 10 ok, t1/text_index failed: test" in told


def test_bench_gives_ratios(store_url: str):
    found = answer("bench", "--count", "100")
    assert [row["operation"] for row in found["operations"]][:2] == ["add a message", "add 100 messages"]
    for row in found["operations"]:
        assert row["ratio"] == pytest.approx(row["perdure_per_second"] / row["sqlite3_per_second"], rel=0.05)
    assert "RATIO" in call("bench", "--count", "100").stdout
    assert [path.name for path in Path().iterdir() if path.suffix == ".db"] == ["perdure.db"]


# -- what a terminal and a pipe get --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [
    ("--help",), ("conversations",), ("conversations", "show", "trip"), ("search", "peanut"), ("stats",), ("doctor",),
    ("checkpoints",),
])  # fmt: skip
def test_pipes_get_neither_escape_codes_nor_boxes(store_url: str, words: tuple[str, ...]):
    done = process(*words)
    assert done.returncode == 0
    assert ESCAPE not in done.stdout + done.stderr
    assert not re.search("[\u2500-\u257f]", done.stdout + done.stderr)


def test_a_terminal_gets_colour_unless_told_not_to(store_url: str):
    coloured = terminal("search", "peanut")
    assert f"{ESCAPE}[1;33mpeanuts{ESCAPE}[0m" in coloured
    plain = terminal("search", "peanut", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", plain)
    assert "«peanuts»" in plain
    dumb = terminal("search", "peanut", TERM="dumb")
    assert "\x1b[1;33m" not in dumb
    assert "«peanuts»" in dumb


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_and_texts_fit_the_terminal(store_url: str, columns: int):
    with perdure.sync.open(store_url) as store:
        store.create_conversation("agent", "user", {"title": "A title that is much longer than any window " * 3})
        store.add_message("bug", "user", "many words that must be wrapped somewhere " * 9)
    for words in (("conversations",), ("conversations", "show", "bug"), ("stats",), ("search", "words")):
        lines = without_escapes(terminal(*words, columns=columns)).split("\n")
        assert max(len(line) for line in lines) <= columns, words
    shown = without_escapes(terminal("conversations", columns=columns))
    assert "trip" in shown
    assert "No room for" in shown if columns < 100 else "AGENT" in shown


def test_json_is_utf8_whatever_the_locale(store_url: str):
    with perdure.sync.open(store_url) as store:
        store.create_conversation("a", "b", {"title": "Grüße 日本"}, id="umlaut")
    command = [sys.executable, "-m", "perdure.cli.main", "conversations", "show", "umlaut"]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*command, "--json"], capture_output=True, env=env, check=True)
    assert json.loads(done.stdout.decode())["conversation"]["metadata"]["title"] == "Grüße 日本"
    done = subprocess.run(command, capture_output=True, env=env, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(b"Gr??e")


def test_stored_text_cannot_drive_the_terminal(store_url: str):
    hostile = "\x1b]0;owned\x07 \x1b[2J red\x9b31m \u202etxt.exe\u2066 [bold]markup[/bold] \r over"
    with perdure.sync.open(store_url) as store:
        metadata = {"title": hostile, "tags": [hostile], "participants": [hostile]}
        store.create_conversation(f"agent {hostile}", f"user {hostile}", metadata, id=f"id {hostile}")
        store.add_message(f"id {hostile}", "user", f"peanuts {hostile}", name=hostile)
        usage = {"input_tokens": 1, "model": hostile}
        calls = [{"type": "tool_call", "id": "c", "name": hostile, "arguments": hostile}]
        store.add_message(f"id {hostile}", "assistant", calls, token_usage=usage)
        results = [{"type": "tool_result", "tool_call_id": "c", "content": hostile}]
        store.add_message(f"id {hostile}", "tool", results)
    for words in (("conversations",), ("conversations", "show", f"id {hostile}"), ("search", "peanuts"), ("stats",)):
        shown = call(*words).stdout
        assert "[bold]markup[/bold]" in shown, words
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066]", shown), words
    assert json.dumps(hostile) in json.dumps(answer("conversations"))


# -- the demo -----------------------------------------------------------------------------------------------------------


def test_the_demo_keeps_its_promises_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = process("demo", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert (found["import"]["conversations"], found["import"]["messages"]) == (16, 402)
    assert all(search["hits"] for search in found["searches"])
    assert found["crash"]["kills"] == 3
    assert found["crash"]["acknowledged_turns"] > 0
    assert found["crash"]["found_turns"] == found["crash"]["acknowledged_turns"] + found["crash"]["unreported_turns"]
    assert found["crash"]["messages"] == 2 * found["crash"]["found_turns"]
    assert (found["crash"]["lost_turns"], found["crash"]["seq_gaps"], found["crash"]["half_turns"]) == (0, 0, 0)
    assert found["crash"]["totals_exact"] is True
    run = found["run"]
    assert 0 < run["reported_step"] <= run["checkpoint_step"] <= run["reported_step"] + 1 < run["steps"]
    assert run["resumed_with_step"] == run["checkpoint_step"] + 1
    assert run["checkpoints"] == run["steps"] == 55
    assert (found["what_if"]["added"], found["what_if"]["removed"], found["what_if"]["changed"]) == (1, 2, 2)
    assert found["doctor"]["problems"] == []
    assert found["index"]["seconds"] > 0
    assert found["seconds"] < 60
    assert not list(tmp_path.iterdir())


def test_the_demo_tells_a_story_in_nine_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = process("demo", "--keep")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\d)  \S", done.stdout, re.MULTILINE) == list("123456789")
    assert ESCAPE not in done.stdout
    assert re.search(r"402 messages from \S+ in [\d.]+ s, tool calls, tokens and cost included\.\n", done.stdout)
    assert re.search(r"^3  .*\n   Indexed in [\d.]+ s\.\n\n   \"peanut", done.stdout, re.MULTILINE)
    killed = re.search(r"killed after step (\d+) of 55\. Its last checkpoint, \w{8}, is of step (\d+)", done.stdout)
    assert killed is not None
    assert f"-> the run goes on with step {int(killed[2]) + 1}.\n" in done.stdout
    assert re.search(r"^     \* \|  \w{8} .* main$", done.stdout, re.MULTILINE)
    assert "+ messages[id=what-if]" in done.stdout
    url = re.search(r"^Store: (\S+)$", done.stdout, re.MULTILINE)
    assert url is not None
    again = process("--url", url[1], "conversations", "--json", "-n", "50")
    assert len(json.loads(again.stdout)["conversations"]) == 18  # the sample, the writer's and the fork
    kept = process("--url", url[1], "checkpoints", "list", "demo-run", "-n", "100", "--json")
    assert len(json.loads(kept.stdout)["checkpoints"]) == 56


def test_the_demo_on_a_store_of_the_user_leaves_it_as_it_was(store_url: str):
    before = answer("stats")
    result = call("demo", "--json", env={"PERDURE_URL": store_url})
    assert result.exit_code == 0, result.stderr
    tenant = json.loads(result.stdout)["tenant"]
    assert tenant.startswith("demo-")
    assert answer("stats") == before
    assert answer("stats", "--tenant", tenant)["stats"]["conversations"] == 0
    assert answer("checkpoints", "--tenant", tenant)["threads"] == []


def test_the_demo_on_postgresql(empty_postgres_url: str):
    done = process("demo", "--json", PERDURE_URL=empty_postgres_url)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert found["import"]["messages"] == 402
    assert found["crash"]["lost_turns"] == 0
    assert found["doctor"]["engine"].startswith("PostgreSQL")
    with perdure.sync.open(empty_postgres_url) as store:
        assert store.execute("select count(*) from conversations")[0][0] == 0
        assert store.execute("select count(*) from messages")[0][0] == 0
        assert store.execute("select count(*) from checkpoints")[0][0] == 0


def test_the_demo_takes_a_history_of_the_user(tmp_path: Path):
    topics = ("gearbox", "sourdough", "telescope")
    lines = [
        json.dumps({"messages": [
            {"role": "user", "content": f"Please explain the {topic}, I need the {topic} today."},
            {"role": "assistant", "content": f"A {topic} is easy to explain."},
        ]})
        for topic in topics
    ]  # fmt: skip
    (tmp_path / "mine.jsonl").write_text("\n".join([*lines, "{broken"]), encoding="utf-8")
    result = call("demo", "--input", "mine.jsonl", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["import"]["conversations"], found["import"]["messages"], found["import"]["broken"]) == (3, 6, 1)
    assert [one["query"] for one in found["searches"]] == list(topics)
    assert "line 4: " in result.stderr
    (tmp_path / "bad.jsonl").write_text("{broken\n", encoding="utf-8")
    told = call("demo", "--input", "mine.jsonl").stdout
    assert re.search(r"3 conversations with 6 messages from mine\.jsonl in [\d.]+ s\.\n", told)
    refused = call("demo", "--input", "bad.jsonl")
    assert refused.exit_code == 2
    assert "perdure: nothing can be loaded from bad.jsonl: line 1: " in refused.stderr


def test_the_demo_refuses_what_it_cannot_do():
    assert "two processes" in call("demo", "-u", ":memory:").stderr
    assert call("demo", "--tenant", "mine").exit_code == 2
    result = call("demo", "--input", "nowhere.jsonl")
    assert result.exit_code == 2
    assert result.stderr == "perdure: there is no file nowhere.jsonl\n"


def test_the_proof_by_kill_fails_when_something_is_missing(store_url: str):
    from perdure.cli.demo import crash
    from perdure.cli.demo.writer import turn

    def verdict(acknowledged: int) -> crash.Verdict:
        turns, state = crash.examine(store, "written")
        return crash.Verdict([crash.round_of(set(range(1, acknowledged + 1)), turns, 1)], **state)

    with perdure.sync.open(store_url) as store:
        store.create_conversation("demo-writer", "demo", id="written")
        for number in (1, 2, 3):
            store.add_messages("written", turn(number))
        assert verdict(3).holds
        assert verdict(2).holds  # a third that was stored and not yet reported
        assert not verdict(4).holds
        assert verdict(4).rounds[0].lost == 1
        store.execute("update conversations set total_tokens = total_tokens + 1 where id = 'written'")
        assert not verdict(3).totals_exact
        store.execute("update conversations set total_tokens = total_tokens - 1 where id = 'written'")
        assert verdict(3).holds
        store.delete_message(store.get_messages("written")[3].id)
        broken = verdict(3)
        assert (broken.half_turns, broken.seq_gaps, broken.holds) == (1, 1, False)


def test_queries_for_an_unknown_history_are_its_own_words(store_url: str):
    from perdure.cli.demo.terms import distinctive

    with perdure.sync.open(store_url) as store:
        for topic in ("gearbox", "sourdough", "telescope"):
            made = store.create_conversation("a", "u")
            for _ in range(3):
                store.add_message(made.id, "user", f"Please explain the {topic} again, the {topic} is strange.")
        assert distinctive(store, 3) == ["gearbox", "sourdough", "telescope"]
        empty = store.for_tenant("empty")
        assert distinctive(empty, 3) == []
        made = empty.create_conversation("a", "u")
        empty.add_message(made.id, "user", "🙂")
        empty.add_message(made.id, "user", "ok so be it")
        assert distinctive(empty, 3) == ["ok so be it"]


# -- the documentation --------------------------------------------------------------------------------------------------


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{path} {name}")


def test_the_documentation_lists_every_command_and_option():
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `(perdure[^`]*)`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    commands = dict(_commands(typer.main.get_command(app), "perdure"))
    assert sorted(sections) == sorted(commands)
    alone = {"--version", "--install-completion", "--show-completion"}
    common = {"--help", "-h"} | _options(commands["perdure"]) - alone
    for path, command in commands.items():
        cells = " ".join(re.findall(r"^\|(.*?)\|", sections[path], re.MULTILINE))
        documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cells))
        wanted = _options(command) | {"--help", "-h"} if path == "perdure" else _options(command) - common
        assert documented == wanted, path


def _options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")}
