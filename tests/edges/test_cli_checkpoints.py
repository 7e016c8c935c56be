"""``perdure checkpoints`` as its users meet it, on both engines: trees, states, differences, ways back, upkeep."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_tools import ESCAPE, answer, call, process, quiet, terminal, without_escapes

import perdure.sync
from perdure.sync import Checkpointer
from perdure.values import tagged

ODD = {
    "when": datetime(2026, 11, 1, 9, tzinfo=UTC),
    "there": datetime(2026, 11, 1, 9, tzinfo=timezone(timedelta(hours=2))),
    "day": date(2026, 11, 1),
    "long": timedelta(minutes=1, microseconds=5),
    "price": Decimal("120.50"),
    "photo": b"\x89PNG",
    "pair": (1, 2),
    "labels": {"b", "a"},
    "grid": np.zeros((2, 3)),
    "huge": 2**70,
    "none": float("nan"),
    "$dollar": "kept",
    "by number": {7: "seven"},
}


@dataclass
class Flight:
    number: str
    seats: int


@pytest.fixture(autouse=True)
def quiet_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test in a folder of its own, with nothing of the developer's terminal."""
    quiet(monkeypatch, tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of either engine in which nothing is; the command looks there."""
    sqlite = f"sqlite:///{tmp_path / 'perdure.db'}"
    url = sqlite if request.param == "sqlite" else request.getfixturevalue("fresh_postgres_url")
    with perdure.sync.open(url):
        monkeypatch.setenv("PERDURE_URL", url)
    return url


@pytest.fixture
def ids(store_url: str) -> list[str]:
    """The ids of a thread's checkpoints: eight steps of ``main`` (0 to 7), two of ``what-if`` (8, 9) that left at 4."""
    with perdure.sync.open(store_url) as store:
        keeper = Checkpointer(store)
        state: dict[str, Any] = {"goal": "Oslo", "messages": [], "plan": {"done": False, "steps": ["find", "pay"]}}
        made: list[str] = []
        for step in range(7):
            state = {**state, "messages": [*state["messages"], {"id": f"m{step}", "text": f"Step {step}"}]}
            tags = ["good"] if step == 3 else []
            made.append(keeper.save("trip", state, {"step": step}, tags, node="plan" if step % 2 else "book"))
        keeper.create_branch(made[4], "what-if")
        other = {**state, "messages": [*state["messages"][:5], {"id": "x", "text": "By train"}], "extra": 1}
        made.append(
            keeper.save("trip", {**state, "plan": {"done": True, "steps": ["find", "pay"]}}, status="completed")
        )
        made.append(keeper.save("trip", other, branch="what-if"))
        made.append(keeper.save("trip", {**other, "goal": "Bergen"}, status="failed", branch="what-if"))
        keeper.save("tiny", {"n": 1})
    return made


def tails(ids: list[str]) -> list[str]:
    return [one[-8:] for one in ids]


# -- lists ---------------------------------------------------------------------------------------------------------------


def test_the_group_alone_and_list_name_the_threads(ids: list[str]):
    rows = [re.split(r"  +", line) for line in call("checkpoints").stdout.splitlines()]
    assert [row[0] for row in rows] == ["THREAD", "tiny", "trip"]
    assert [row[1].split()[0] for row in rows] == ["SAVED", "1", "10"]
    assert call("checkpoints", "list").stdout.splitlines()[2].startswith("trip")
    first = answer("checkpoints", "list", "-n", "1")
    assert [one["id"] for one in first["threads"]] == ["tiny"]
    rest = answer("checkpoints", "list", "-n", "1", "--cursor", first["next_cursor"])
    assert ([one["id"] for one in rest["threads"]], rest["next_cursor"]) == (["trip"], None)
    assert call("checkpoints", "list", "--cursor", "%%").exit_code == 2


def test_an_empty_list_says_why(store_url: str):
    assert call("checkpoints").stdout == "No checkpoints yet.\n"
    assert call("checkpoints", "list", "-n", "0").stdout == "None shown: --limit is 0.\n"
    gone = call("checkpoints", "list", "trip")
    assert (gone.exit_code, gone.stdout) == (2, "")
    assert "perdure: there is no thread 'trip'\nhint: perdure checkpoints names them\n" in gone.stderr
    assert "a thread is missing" in call("checkpoints", "list", "--failed").stderr


def test_a_thread_is_a_tree_with_its_newest_on_top(ids: list[str]):
    lines = call("checkpoints", "list", "trip").stdout.splitlines()
    assert lines[0] == "trip  (2 branches)"
    short = tails(ids)
    drawn = [(line[:3], line[5:13]) for line in lines[2:]]
    assert drawn == [
        ("  x", short[9]), ("  *", short[8]), ("* |", short[7]), ("* |", short[6]), ("* |", short[5]), ("*-'", short[4]),
        *(("*  ", one) for one in reversed(short[:4])),
    ]  # fmt: skip
    assert lines[2].endswith("what-if")
    assert re.search(r"completed +\d+ bytes  main$", lines[4])
    assert re.search(r"ok +plan +\d+ bytes  #good$", lines[8])


def test_a_page_of_a_tree_goes_on(ids: list[str]):
    page = answer("checkpoints", "list", "trip", "-n", "4")
    assert [one["id"] for one in page["checkpoints"]] == [ids[9], ids[8], ids[7], ids[6]]
    rest = answer("checkpoints", "list", "trip", "-n", "4", "--cursor", page["next_cursor"])
    assert [one["id"] for one in rest["checkpoints"]] == [ids[5], ids[4], ids[3], ids[2]]
    assert {one["name"]: one["forked_from_id"] for one in page["branches"]} == {"main": None, "what-if": ids[4]}
    told = call("checkpoints", "list", "trip", "-n", "4")
    assert f"--cursor {page['next_cursor']}\n" in told.stderr
    # A line goes on where what it leads to is not shown.
    assert [line[:3] for line in told.stdout.splitlines()[2:]] == ["  x", "  *", "* |", "* |"]


def test_failed_ones_and_a_branch_are_lists(ids: list[str]):
    assert [one["id"] for one in answer("checkpoints", "list", "trip", "--failed")["checkpoints"]] == [ids[9]]
    branch = answer("checkpoints", "list", "trip", "--branch", "what-if")["checkpoints"]
    assert [one["id"] for one in branch] == [ids[9], ids[8]]
    unknown = call("checkpoints", "list", "trip", "--branch", "nope")
    assert unknown.exit_code == 2
    assert "hint: it has: main, what-if\n" in unknown.stderr
    assert call("checkpoints", "list", "tiny", "--failed").stdout.endswith("No checkpoint fits.\n")


def test_changes_say_what_each_did(ids: list[str]):
    lines = call("checkpoints", "list", "trip", "--changes").stdout.splitlines()[2:]
    assert [re.split(r"  +", line)[-1] for line in lines[:5]] == [
        "~goal", "+extra, +messages[id=x]", "~plan.done",
        "+messages[id=m6]", "+messages[id=m5]",
    ]  # fmt: skip
    assert lines[-1].endswith("+goal, +messages, +plan")
    rows = answer("checkpoints", "list", "trip", "--changes")["checkpoints"]
    assert rows[2]["changes"] == {"added": [], "removed": [], "changed": ["plan.done"], "moved": []}


def test_many_branches_stand_beside_each_other(store_url: str):
    with perdure.sync.open(store_url) as store:
        keeper = Checkpointer(store)
        root = keeper.save("t", {"n": 0})
        middle = keeper.save("t", {"n": 1})
        for name, start in (("a", root), ("b", root), ("c", middle), ("empty", middle)):
            keeper.create_branch(start, name)
        for name in ("main", "a", "b", "c"):
            keeper.save("t", {"n": name}, branch=name)
    lines = call("checkpoints", "list", "t").stdout.splitlines()[2:]
    assert [line[:7] for line in lines] == ["  *    ", "  | *  ", "  | | *", "* | | |", "*-' | |", "*---'-'"]
    assert [line.split()[-1] for line in lines[:5]] == ["c", "b", "a", "main", "empty"]


def test_pipes_get_plain_lines_and_terminals_fine_ones(ids: list[str]):
    piped = process("checkpoints", "list", "trip")
    assert ESCAPE not in piped.stdout
    assert not re.search("[\u2500-\u257f●✗]", piped.stdout)
    shown = terminal("checkpoints", "list", "trip")
    assert re.search(r"●.*─.*╯", without_escapes(shown))
    assert f"{ESCAPE}[31mfailed" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", terminal("checkpoints", "list", "trip", NO_COLOR="1"))


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_everything_fits_the_terminal(ids: list[str], store_url: str, columns: int):
    with perdure.sync.open(store_url) as store:
        long = {"text": "many words " * 50, "deep": {"er": {"list": [{"id": "a", "text": "word " * 40}] * 3}}}
        last = Checkpointer(store).save("trip", long, tags=["a rather long tag", "and another one"])
    for words in (
        ("list", "trip", "--changes"), ("show", last), ("diff", "trip~1", "trip"), ("diff", "trip~1", "trip", "--stat"),
    ):  # fmt: skip
        lines = without_escapes(terminal("checkpoints", *words, columns=columns)).splitlines()
        assert (
            max(len(line.rstrip()) for line in lines if "perdure" not in line and "postgres" not in line) <= columns
        ), words


# -- which one -----------------------------------------------------------------------------------------------------------


def shown(*words: str) -> str:
    return answer("checkpoints", "show", *words)["checkpoint"]["id"]


def test_a_checkpoint_has_many_names(ids: list[str]):
    assert shown(ids[2]) == ids[2]
    assert shown(ids[2][-6:], "--thread", "trip") == ids[2]
    assert shown("trip@" + ids[2][-8:]) == ids[2]
    assert shown(ids[0][:-1], "--thread", "trip") == ids[0]
    assert shown("trip") == shown("trip@latest") == shown("latest", "--thread", "trip") == ids[7]
    assert shown("trip@what-if") == shown("what-if", "--thread", "trip") == ids[9]
    assert shown("trip@good") == ids[3]
    assert shown("trip~3") == shown("~3", "--thread", "trip") == ids[4]
    assert shown("trip@what-if~2") == ids[4]
    assert shown("trip@what-if~6") == shown("trip~7") == ids[0]


def test_names_that_stand_for_nothing_or_too_much_are_refused(ids: list[str]):
    for words, why in (
        (("nope",), "there is no checkpoint 'nope'"),
        (("trip@nope",), "no checkpoint, branch or tag 'nope'"),
        (("trip~9",), "there are 7 checkpoints before"),
        ((ids[0][:4], "--thread", "trip"), "stands for 10 checkpoints"),
        (("good", "--thread", "tiny"), "thread 'tiny' has no checkpoint"),
    ):
        refused = call("checkpoints", "show", *words)
        assert refused.exit_code == 2
        assert why in refused.stderr
        assert ("hint: " in refused.stderr) == ("before" not in why)


def test_a_thread_may_be_called_like_an_address(store_url: str):
    with perdure.sync.open(store_url) as store:
        made = [Checkpointer(store).save("ann@example.com", {"n": n}) for n in range(3)]
    assert shown("ann@example.com") == made[2]
    assert shown("ann@example.com~1") == made[1]
    assert shown("ann@example.com@latest~2") == made[0]


# -- states --------------------------------------------------------------------------------------------------------------


def test_a_state_is_shown_as_a_person_reads_it(ids: list[str]):
    text = call("checkpoints", "show", ids[3]).stdout
    assert re.match(
        rf"Checkpoint {ids[3]}\nthread     trip, branch main\nsaved      [\d: -]+ UTC, ok, as number 3, \d+ bytes new\n"
        rf"made from  {ids[2]}\nnode       plan\ntags       good\nmetadata   {{step: 3}}\n\ngoal: \"Oslo\"\n",
        text,
    )
    assert 'plan: {done: false, steps: ["find", "pay"]}\n' in text
    assert call("checkpoints", "show", ids[3], "--path", "messages[id=m2].text").stdout == "Step 2\n"
    assert call("checkpoints", "show", ids[3], "--path", "plan.steps[-1]").stdout == "pay\n"
    assert call("checkpoints", "show", ids[3], "--path", "messages.0").stdout == 'id: "m0"\ntext: "Step 0"\n'
    wrong = call("checkpoints", "show", ids[3], "--path", "plan.stepz")
    assert wrong.exit_code == 2
    assert "perdure: there is no 'stepz' at 'plan'\nhint: there is: done, steps\n" in wrong.stderr
    assert "this is no path" in call("checkpoints", "show", ids[3], "--path", "plan[").stderr


def test_long_values_are_cut_unless_asked_for(store_url: str):
    with perdure.sync.open(store_url) as store:
        long = {"text": "x" * 5_000, "list": [{"id": n, "text": "y" * 300} for n in range(100)]}
        id = Checkpointer(store).save("t", long)
    cut = call("checkpoints", "show", id).stdout
    assert re.search(r'^text: "x+…" \(\+4,\d+\)$', cut, re.MULTILINE)
    assert "… 85 more items (--full shows them)" in cut
    assert "[99] " in cut
    full = call("checkpoints", "show", id, "--full").stdout
    assert "…" not in full
    assert full.count("y" * 300) == 100


def test_json_tags_what_json_lacks(store_url: str):
    with perdure.sync.open(store_url) as store:
        id = Checkpointer(store).save("t", ODD)
    state = answer("checkpoints", "show", id)["state"]
    plain = {name: state[name] for name in ("when", "price", "photo", "$$dollar")}
    assert tagged.decode(json.dumps(plain)) == {name: ODD[name] for name in ("when", "price", "photo", "$dollar")}
    assert state["there"] == {"$datetime": "2026-11-01T09:00:00+02:00"}
    assert state["pair"] == {"$tuple": [1, 2]}
    assert state["labels"] == {"$set": ["a", "b"]}
    assert state["grid"]["$array"]["shape"] == [2, 3]
    assert (state["huge"], state["none"]) == ({"$integer": str(2**70)}, {"$float": "nan"})
    assert (state["day"], state["long"]) == ({"$date": "2026-11-01"}, {"$seconds": "60.000005"})
    assert state["by number"] == {"$pairs": [[7, "seven"]]}
    text = call("checkpoints", "show", id).stdout
    for line in (
        "price: 120.50",
        "photo: <4 bytes: 89504e47>",
        'labels: {"a", "b"}',
        "grid: <array of float64, 2 x 3>",
    ):
        assert f"{line}\n" in text


def test_classes_of_the_program_need_not_be_known(store_url: str):
    with perdure.sync.open(store_url) as store:
        keeper = Checkpointer(store)
        keeper.register_type("flight", Flight)
        first = keeper.save("t", {"flight": Flight("SK 1", 2)})
        second = keeper.save("t", {"flight": Flight("SK 1", 3)})
    assert 'flight: flight{number: "SK 1", seats: 3}\n' in call("checkpoints", "show", second).stdout
    assert answer("checkpoints", "show", first)["state"]["flight"] == {
        "$object": {"type": "flight", "version": 1, "fields": {"number": "SK 1", "seats": 2}}
    }
    assert "~ flight.fields.seats  2 -> 3\n" in call("checkpoints", "diff", first, second).stdout
    assert answer("checkpoints", "verify")["ok"] is True
    assert call("checkpoints", "restore", first, "--as-latest").exit_code == 0
    with perdure.sync.open(store_url) as store:
        keeper = Checkpointer(store)
        keeper.register_type("flight", Flight)
        assert keeper.latest_state("t") == {"flight": Flight("SK 1", 2)}


def test_stored_text_cannot_drive_the_terminal(store_url: str):
    hostile = "\x1b]0;owned\x07 \x9b31m \u202etxt.exe [bold]markup[/bold]"
    with perdure.sync.open(store_url) as store:
        keeper = Checkpointer(store)
        thread = f"t {hostile}"
        first = keeper.save(thread, {hostile: {hostile: hostile}}, {hostile: hostile}, [hostile], node=hostile)
        keeper.create_branch(first, hostile)
        last = keeper.save(thread, {hostile: {hostile: hostile * 60}, "new": [hostile]}, branch=hostile)
    for words in (
        (), ("list", thread, "--changes"), ("show", first), ("diff", first, last), ("diff", first, last, "--stat"),
        ("prune", "--dry-run"), ("branch", first, f"b{hostile}"), ("tag", first, f"c{hostile}"),
        ("show", first, "--path", f'["{hostile}"]'.replace("\x1b", "\\u001b").replace("\x07", "\\u0007")),
    ):  # fmt: skip
        done = call("checkpoints", *words)
        assert done.exit_code == 0, done.stderr
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout), words


# -- differences ---------------------------------------------------------------------------------------------------------


def test_a_difference_is_told_by_path(ids: list[str]):
    lines = call("checkpoints", "diff", "trip", "trip@what-if").stdout.splitlines()
    assert lines[0].startswith(f"--- {ids[7]}  trip@main")
    assert lines[1].startswith(f"+++ {ids[9]}  trip@what-if")
    assert lines[2:] == [
        "+ extra  1", '~ goal  "Oslo" -> "Bergen"', '- messages[id=m5]  {id: "m5", text: "Step 5"}',
        '- messages[id=m6]  {id: "m6", text: "Step 6"}', '+ messages[id=x]  {id: "x", text: "By train"}',
        "~ plan.done  true -> false", "2 added, 2 removed, 2 changed.",
    ]  # fmt: skip
    found = answer("checkpoints", "diff", "trip", "trip@what-if")
    assert found["changed"]["goal"] == {"before": "Oslo", "after": "Bergen"}
    assert (list(found["added"]), found["equal"]) == (["extra", "messages[id=x]"], False)
    assert (found["a"]["id"], found["b"]["id"]) == (ids[7], ids[9])
    assert call("checkpoints", "diff", ids[2], ids[2]).stdout.endswith("Nothing is different.\n")


def test_sums_are_by_channel(ids: list[str]):
    lines = call("checkpoints", "diff", "trip", "trip@what-if", "--stat").stdout.splitlines()
    assert lines[2].split() == ["CHANNEL", "ADDED", "REMOVED", "CHANGED", "MOVED", "WAS", "IS"]
    assert [line.split()[:3] for line in lines[3:7]] == [
        ["extra", "1", "0"], ["goal", "1", "5"], ["messages", "1", "2"], ["plan", "1", "1"],
    ]  # fmt: skip


def test_one_checkpoint_is_compared_with_the_one_before(ids: list[str]):
    assert "~ plan.done  false -> true\n" in call("checkpoints", "diff", "trip").stdout
    assert '+ messages[id=x]  {id: "x"' in call("checkpoints", "diff", ids[8]).stdout
    assert "has none before it" in call("checkpoints", "diff", ids[0]).stderr


def test_long_texts_are_shown_from_where_they_part(store_url: str):
    with perdure.sync.open(store_url) as store:
        keeper = Checkpointer(store)
        keeper.save("t", {"text": "word " * 200 + "before"})
        keeper.save("t", {"text": "word " * 200 + "after"})
    assert call("checkpoints", "diff", "t").stdout.splitlines()[2:5] == [
        "~ text", '    - "…d word word before"', '    + "…d word word after"',
    ]  # fmt: skip


# -- ways back -----------------------------------------------------------------------------------------------------------


def test_a_branch_begins_at_a_checkpoint(ids: list[str], store_url: str):
    told = call("checkpoints", "branch", "trip~2", "again")
    assert told.stdout == f"Branch 'again' of thread 'trip' begins at {ids[5]}.\n"
    with perdure.sync.open(store_url) as store:
        assert Checkpointer(store).branches("trip")[-1].forked_from_id == ids[5]
    assert answer("checkpoints", "branch", ids[0], "first")["from"] == ids[0]
    twice = call("checkpoints", "branch", ids[0], "first")
    assert twice.exit_code == 2


def test_tags_are_put_on_and_taken_off(ids: list[str]):
    assert call("checkpoints", "tag", "trip", "a", "b").stdout == f"{ids[7]} has the tags a, b.\n"
    assert answer("checkpoints", "untag", "trip@a", "a", "unknown") == {"id": ids[7], "tags": ["b"]}
    assert call("checkpoints", "untag", "trip@b", "b").stdout == f"{ids[7]} has no tags.\n"


def test_restore_writes_the_state(ids: list[str], tmp_path: Path):
    printed = call("checkpoints", "restore", "trip@good")
    assert [one["id"] for one in json.loads(printed.stdout)["messages"]] == ["m0", "m1", "m2", "m3"]
    told = call("checkpoints", "restore", "trip@good", "--output", "state.json")
    assert re.fullmatch(rf"Wrote the state of {ids[3]} to state\.json, \d+ bytes\.\n", told.stdout)
    assert (tmp_path / "state.json").read_text(encoding="utf-8") == printed.stdout
    assert not list(tmp_path.glob(".state*"))
    assert call("checkpoints", "restore", "trip", "-o", "nowhere/state.json").exit_code == 2


def test_restore_goes_on_from_an_older_state(ids: list[str], store_url: str):
    told = call("checkpoints", "restore", ids[3], "--as-latest")
    new = re.fullmatch(
        rf"Saved the state of {ids[3]} again as (\S+), the newest of branch 'main' of thread 'trip'\.\n", told.stdout
    )
    assert new is not None
    with perdure.sync.open(store_url) as store:
        keeper = Checkpointer(store)
        latest = keeper.latest("trip")
        assert latest is not None
        assert (latest.id, latest.metadata, latest.parent_id) == (new[1], {"restored_from": ids[3]}, ids[7])
        assert keeper.restore(new[1]) == keeper.restore(ids[3])
        assert keeper.verify().ok
    failed = answer("checkpoints", "restore", "trip@what-if", "--as-latest")
    assert (failed["id"], failed["branch"], failed["file"]) == (ids[9], "what-if", None)
    assert answer("checkpoints", "show", failed["saved"])["checkpoint"]["status"] == "ok"


# -- prune, verify -------------------------------------------------------------------------------------------------------


def test_prune_says_what_goes_and_why(ids: list[str]):
    planned = call("checkpoints", "prune", "trip", "--keep", "2", "--dry-run").stdout
    assert re.match(r"Would prune 5 of 10 checkpoints, which had added [\d.]+ (bytes|KB)\.\n", planned)
    assert re.search(r"^ +5  go +more than 2 in a thread$", planned, re.MULTILINE)
    for words in ("2  stay  newest of a branch", "1  stay  a branch begins there", "1  stay  tagged"):
        assert words in planned
    assert len(answer("checkpoints", "list", "trip")["checkpoints"]) == 10
    done = answer("checkpoints", "prune", "--keep", "2", "--yes")
    assert (done["removed"], done["kept"]) == (5, 6)
    assert done["bytes"] > 0
    by_thread = {one["thread_id"]: one for one in done["threads"]}
    assert set(by_thread["trip"]["removed"].values()) == {"too_many"}
    assert by_thread["tiny"]["removed"] == {}
    left = [one["id"] for one in answer("checkpoints", "list", "trip")["checkpoints"]]
    assert left == [ids[9], ids[8], ids[7], ids[4], ids[3]]
    assert [line[:3] for line in call("checkpoints", "list", "trip").stdout.splitlines()[2:]][-2:] == ["*-'", "*  "]
    assert answer("checkpoints", "verify")["ok"] is True
    assert "Nothing to prune: all of " in call("checkpoints", "prune").stdout


def test_nothing_goes_unasked(ids: list[str]):
    refused = call("checkpoints", "prune", "--keep", "2")
    assert refused.exit_code == 2
    assert "nobody is here to be asked" in refused.stderr
    assert len(answer("checkpoints", "list", "trip")["checkpoints"]) == 10
    assert "nothing was changed" in terminal("checkpoints", "prune", "--keep", "2", typed="n\n", code=2)
    told = terminal("checkpoints", "prune", "--keep", "2", typed="y\n")
    assert "of 1 thread? This cannot be undone. [y/N]" in without_escapes(told).replace("\n", "")
    assert len(answer("checkpoints", "list", "trip")["checkpoints"]) < 10


def test_age_alone_counts_no_checkpoints(store_url: str):
    with perdure.sync.open(store_url) as store:
        keeper = Checkpointer(store)
        for n in range(60):
            keeper.save("t", {"n": n})
    assert answer("checkpoints", "prune", "t", "--days", "1", "--yes")["removed"] == 0
    assert answer("checkpoints", "prune", "t", "--days", "0", "--dry-run")["removed"] == 50
    assert answer("checkpoints", "prune", "t", "--dry-run")["removed"] == 10
    assert call("checkpoints", "prune", "t", "--keep", "0", "--yes").exit_code == 2


def test_verify_exits_with_4_when_something_is_wrong(ids: list[str], store_url: str):
    fine = call("checkpoints", "verify", "trip")
    assert (fine.exit_code, fine.stdout) == (
        0, "No problems found.\nLooked at 10 checkpoints in 1 thread, 0 segments.\n",
    )  # fmt: skip
    assert call("checkpoints", "verify", "nope").exit_code == 2
    with perdure.sync.open(store_url) as store:
        store.execute("update checkpoints set run_id = 'forged' where status = 2")
    broken = call("checkpoints", "verify")
    assert broken.exit_code == 4
    assert re.match(r"1 problem found:\n- .*\n", broken.stdout)
    found = answer("checkpoints", "verify", code=4)
    assert (found["ok"], found["threads"], len(found["problems"])) == (False, 2, 1)


# -- keys ----------------------------------------------------------------------------------------------------------------


def test_a_key_comes_from_a_file_or_the_environment(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with perdure.sync.open(store_url) as store:
        config = perdure.CheckpointConfig(encryption_key="correct horse")
        id = Checkpointer(store, config).save("t", {"secret": "classified"})
    closed = call("checkpoints", "show", id)
    assert (closed.exit_code, closed.stdout) == (4, "")
    assert "hint: the key or passphrase that they were saved with, in PERDURE_KEY or --key-file\n" in closed.stderr
    (tmp_path / "key").write_text("correct horse\n", encoding="utf-8")
    assert 'secret: "classified"\n' in call("checkpoints", "show", id, "--key-file", "key").stdout
    (tmp_path / "wrong").write_text("wrong\n", encoding="utf-8")
    assert call("checkpoints", "show", id, "--key-file", "wrong").exit_code == 4
    assert call("checkpoints", "show", id, "--key-file", "none").exit_code == 2
    assert answer("checkpoints", "verify", code=4)["problems"]
    assert [one["id"] for one in answer("checkpoints")["threads"]] == ["t"]
    monkeypatch.setenv("PERDURE_KEY", "correct horse")
    assert answer("checkpoints", "verify")["ok"] is True
    assert call("checkpoints", "restore", "t", "--as-latest").exit_code == 0
    assert call("checkpoints", "list", "t").stdout.count("\n*") == 2


def test_a_key_that_nothing_needs_encrypts_nothing(ids: list[str], store_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PERDURE_KEY", "a slip of the fingers")
    assert shown("trip") == ids[7]
    assert call("checkpoints", "branch", "trip", "b").exit_code == 0
    with perdure.sync.open(store_url) as store:
        assert store.execute("select count(*) from checkpoint_keys")[0][0] == 0


# -- LangGraph -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(store_url: str) -> list[Any]:
    """A conversation of LangGraph's, with another course from its third checkpoint; the newest configuration first."""
    from langgraph.graph import MessagesState, StateGraph

    from perdure.adapters.langgraph import PerdureSaver

    with perdure.sync.open(store_url) as store:
        graph = StateGraph(MessagesState).add_node(
            "talk", lambda state: {"messages": [("ai", f"{len(state['messages'])}")]}
        )
        compiled = graph.add_edge("__start__", "talk").compile(checkpointer=PerdureSaver(store))
        config: Any = {"configurable": {"thread_id": "chat"}}
        for said in ("hi", "again"):
            compiled.invoke({"messages": [("user", said)]}, config)
        history = list(compiled.get_state_history(config))
        compiled.update_state(history[2].config, {"messages": [("user", "other")]})
        return [one.config["configurable"]["checkpoint_id"] for one in compiled.get_state_history(config)]


def test_threads_of_langgraph_are_shown(chat: list[Any]):
    assert re.search(r"^chat +LangGraph +7 ", call("checkpoints").stdout, re.MULTILINE)
    lines = call("checkpoints", "list", "chat", "--changes").stdout.splitlines()
    assert lines[0] == "chat  (LangGraph)"
    assert [line[:3] for line in lines[2:]] == ["*  ", "| *", "| *", "*-'", "*  ", "*  ", "*  "]
    assert re.search(r"update 3 +\d+ bytes +.*\+messages\[id=", lines[2])
    told = call("checkpoints", "show", "chat").stdout
    assert "thread     chat (LangGraph)\n" in told
    assert 'content: "other", type: "human"' in told
    found = answer("checkpoints", "show", "chat@" + chat[0][-8:])
    assert [one["content"] for one in found["state"]["messages"]] == ["hi", "1", "other"]
    assert found["langgraph"]["id"] == chat[0]
    assert 'content: "other"' in call("checkpoints", "diff", "chat").stdout
    written = json.loads(call("checkpoints", "restore", "chat").stdout)
    assert (written["id"], len(written["channel_values"]["messages"])) == (chat[0], 3)
    assert answer("checkpoints", "verify")["ok"] is True


def test_langgraph_changes_its_threads_itself(chat: list[Any]):
    for words in (
        ("branch", "chat", "b"), ("tag", "chat", "t"), ("untag", "chat", "t"), ("restore", "chat", "--as-latest"),
        ("prune", "chat", "--yes"),
    ):  # fmt: skip
        refused = call("checkpoints", *words)
        assert refused.exit_code == 2, words
        assert "'chat' is a thread of LangGraph" in refused.stderr


def test_a_thread_of_two_worlds_is_found_in_both(chat: list[Any], store_url: str):
    with perdure.sync.open(store_url) as store:
        own = Checkpointer(store).save("chat", {"n": 1})
    assert shown("chat") == own
    assert shown("chat", "--namespace", "") == chat[0]
    told = call("checkpoints", "list", "chat")
    assert "The thread has checkpoints of LangGraph, too: --namespace '' shows them.\n" in told.stderr
    assert len(answer("checkpoints", "list", "chat", "--namespace", "")["checkpoints"]) == 7
    assert call("checkpoints", "list", "chat", "--namespace", "sub").exit_code == 2


def test_without_langgraph_its_values_are_shown_as_what_they_are(chat: list[Any]):
    code = (
        "import sys; sys.modules['langgraph'] = sys.modules['langchain_core'] = None; "
        "sys.argv = ['perdure', 'checkpoints', 'show', 'chat']; from perdure.cli.main import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"messages: \[<msgpack, \d+ bytes>, <msgpack, \d+ bytes>, <msgpack, \d+ bytes>\]\n", done.stdout)
