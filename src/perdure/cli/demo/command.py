"""``perdure demo``: where it happens, in which order, and what is left of it."""

import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from perdure.cli.common import Call, command, config_for
from perdure.values.errors import Invalid

if TYPE_CHECKING:
    from perdure.cli.screen import Screen
    from perdure.sync.store import Store

SAMPLE = "support_agent.jsonl"


def add_to(parent: typer.Typer) -> None:
    """Makes this a part of the ``perdure`` command."""
    command(parent, "demo")(demo)


class Place(msgspec.Struct, frozen=True):
    """Where a demo happens: a store of its own in a folder, or a tenant of its own in the user's store."""

    url: str
    tenant: str
    folder: Path | None

    @contextmanager
    def open(self) -> "Iterator[Store]":
        """The demo's part of the store."""
        import perdure.sync

        with perdure.sync.open(config_for(self.url)) as whole:
            yield whole.for_tenant(self.tenant)

    def command(self, words: str) -> str:
        """A command line that looks into this place; what PERDURE_URL says needs no saying, and no password shows."""
        known = self.url == os.environ.get("PERDURE_URL")
        url = "" if known else f" --url {shlex.quote(config_for(self.url).safe_url)}"
        tenant = "" if self.folder else f" --tenant {self.tenant}"
        return f"perdure{url}{tenant} {words}"

    def clear(self) -> None:
        """Removes what the demo wrote."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        from perdure.cli.demo import travel

        with self.open() as store:
            while found := store.query_conversations(limit=100):
                for conversation in found:
                    store.erase_conversation(conversation.id)
            travel.forget(store)


def demo(
    call: Call,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Your own history instead of the sample: JSON Lines, or messages in OpenAI's or Anthropic's form.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the store in place, to look around in it.")] = False,
) -> None:
    """See what perdure does, on real input.

    Import, search, accounts, kills in the middle of writing and of an agent's run, forks, doctor: in less than a minute. It works on a
    store of its own in a temporary folder; with PERDURE_URL (or --url) in that store, in a new tenant.
    """
    began = time.perf_counter()
    if input_file is not None and not input_file.is_file():
        raise Invalid(f"there is no file {input_file}", field="input")
    place = _place(call)
    screen = call.screen
    try:
        summary = _tell(screen, place, input_file)
        seconds = time.perf_counter() - began
        summary |= {"seconds": round(seconds, 3), "kept": keep, "ok": True}
        _farewell(screen, place, summary, keep=keep)
        screen.say()
        screen.say(f"Done in {seconds:.1f} s.", style="bold green")
    finally:
        if not keep:
            place.clear()
    if screen.json:
        screen.document(summary)


def _place(call: Call) -> Place:
    given = os.environ.get("PERDURE_URL") if call.common.url is None else call.common.url
    if call.common.tenant is not None:
        raise Invalid("the demo makes a tenant of its own", field="tenant", hint="leave --tenant out")
    if not given:
        folder = Path(tempfile.mkdtemp(prefix="perdure-demo-"))
        return Place(f"sqlite:///{folder / 'demo.db'}", "default", folder)
    if config_for(given).connection_string == ":memory:":
        raise Invalid("the demo kills a process that writes, so it needs a store that two processes see", field="url")
    return Place(given, f"demo-{secrets.token_hex(4)}", None)


def _tell(screen: "Screen", place: Place, input_file: Path | None) -> dict[str, Any]:
    """The story; returns its figures."""
    from importlib import resources

    from perdure.cli.demo import steps, terms, travel

    shown = config_for(place.url).safe_url
    screen.heading("perdure: the durable memory of an AI agent")
    screen.say(f"Store: {shown}" + ("" if place.folder else f", in the new tenant {place.tenant}"), style="dim")
    summary: dict[str, Any] = {"store": shown, "tenant": place.tenant}
    sample = resources.as_file(resources.files("perdure.samples").joinpath(SAMPLE))
    with place.open() as store:
        _step(screen, 1, "Bring in a history")
        if input_file is None:
            with sample as path:
                summary["import"] = steps.bring_in(screen, store, path)
        else:
            summary["import"] = steps.bring_in(screen, store, input_file)
        _step(screen, 2, "See the conversations")
        summary["conversations"] = steps.look_around(screen, store)
        _step(screen, 3, "Search what was said")
        summary["index"] = steps.index(screen, store)
        queries = steps.SAMPLE_QUERIES if input_file is None else terms.distinctive(store, 3)
        summary["searches"] = steps.search(screen, store, queries)
        _step(screen, 4, "Know what it cost")
        summary["accounts"] = steps.accounts(screen, store)
        conversation = steps.begin_crash(store)
        to_play = steps.longest(store)
    _step(screen, 5, "Kill it while it writes")
    summary["crash"] = steps.survive(screen, place, conversation)
    _step(screen, 6, "Resume an agent that was killed")
    summary["run"] = travel.resume(screen, place, to_play)
    with place.open() as store:
        screen.say()
        summary["what_if"] = travel.what_if(screen, store)
        _step(screen, 7, "Try another course")
        summary["fork"] = steps.fork_and_edit(screen, store)
        _step(screen, 8, "Ask the doctor")
        summary["doctor"] = steps.examine(screen, store)
    return summary


def _step(screen: "Screen", number: int, title: str) -> None:
    screen.say()
    screen.say(f"{number}  {title}", style="bold")


def _farewell(screen: "Screen", place: Place, summary: dict[str, Any], *, keep: bool) -> None:
    """Step 9: what to try next."""
    _step(screen, 9, "What to try next")
    if keep:
        fork = summary["fork"]["fork"]
        pairs = [
            (place.command("conversations"), ""),
            (place.command(f"conversations show {shlex.quote(fork)}"), ""),
            (place.command("search 'any words'"), ""),
            (place.command(f"checkpoints list {summary['run']['thread']} --changes"), ""),
            (place.command("stats"), ""),
        ]
        screen.say("The store stays where it is:", indent=3)
    else:
        pairs = [
            ("perdure demo --keep", "the same, and the store stays to look around in"),
            ("perdure demo --input FILE", "the same with your own history"),
            ("perdure init", "a store of your own (perdure.db, or --url)"),
            ("perdure import FILE", "your history into it"),
        ]
        gone = "The folder of this demo is removed." if place.folder else "What this demo wrote is erased."
        screen.say(gone, style="dim", indent=3)
    wide = max(len(line) for line, _ in pairs)
    for line, meaning in pairs:
        screen.say(f"{line:<{wide}}  {meaning}".rstrip(), indent=3)
