"""P8: a LangGraph agent of many turns, with perdure's saver, LangGraph's own, and none."""

import gc
import time
import uuid
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from statistics import median
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import _messages_delta_reducer, add_messages

from bench import prose, states
from bench.places import describe, memory_folder
from bench.rounds import Check, Rounds, Row, Spent, Time, faster, slower
from bench.rows import Mode

_TURNS = 500
_TURN = 25
"""Turns of one lane, before it is the next one's turn."""
_NAMES = uuid.UUID(int=8)
_TEXTS = 64


class Whole(TypedDict):
    """A state whose messages are one value of the checkpoint."""

    messages: Annotated[list[AnyMessage], add_messages]


class Delta(TypedDict):
    """A state whose messages LangGraph makes again from what was written to them."""

    messages: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer)]


class Agent:
    """A graph of one node that answers 400 bytes. Without a saver the caller carries the messages himself."""

    def __init__(self, kind: type, saver: Any) -> None:
        self._texts = prose.texts(_TEXTS)
        self._said = 0
        self._carried: list[AnyMessage] | None = [] if saver is None else None
        graph = StateGraph(kind)
        graph.add_node("answer", lambda _state: {"messages": [self._message(AIMessage)]})
        graph.add_edge(START, "answer")
        graph.add_edge("answer", END)
        self._app = graph.compile(checkpointer=saver)
        self._config = {"configurable": {"thread_id": states.THREAD}}

    def _message(self, kind: type[AIMessage] | type[HumanMessage]) -> AnyMessage:
        self._said += 1  # the id is another one for each, and the same in each lane
        return kind(self._texts[self._said % _TEXTS], id=str(uuid.uuid5(_NAMES, str(self._said))))

    def turns(self, count: int) -> Spent:
        """The seconds that some turns took."""
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            asked = self._message(HumanMessage)
            if self._carried is None:
                self._app.invoke({"messages": [asked]}, self._config)
            else:
                self._carried = self._app.invoke({"messages": [*self._carried, asked]})["messages"]
        return Spent(time.perf_counter() - wall, time.process_time() - cpu)

    def messages(self) -> list[tuple[str | None, Any]]:
        """The ids and texts that there are in the end."""
        found = self._app.get_state(self._config).values["messages"] if self._carried is None else self._carried
        return [(one.id, one.content) for one in found]


_MINE, _THEIRS, _DELTA = "PerdureSaver", "SqliteSaver", "SqliteSaver, DeltaChannel"
_MINE_DELTA, _MEMORY, _NONE = "PerdureSaver, DeltaChannel", "InMemorySaver", "no saver"


def running(mode: Mode) -> Row:
    """P8: time and disk of a run of 500 turns; of its length, some turns of each in turn."""
    turns = 100 if mode.name == "quick" else _TURNS
    runs = {"quick": 1, "usual": 3}.get(mode.name, 5)
    found: Rounds = {}
    sizes: dict[str, int] = {}
    place = ""
    for number in range(runs):
        with memory_folder() as folder:
            place = describe(folder)
            for name, spent in _run(folder, turns, number).items():
                found.setdefault(name, []).append(spent)
            sizes = {name: states.on_disk(folder / f"{name}.db") for name in (_MINE, _THEIRS, _DELTA, _MINE_DELTA)}
            empty = states.empty_size(folder)
    growth = sizes[_MINE] - empty
    checks = [
        Check("time, times as fast as SqliteSaver", *faster(found, _MINE, _THEIRS), goal=5, sense="at least", key="P8.time"),
        Check("time, times as fast as SqliteSaver with DeltaChannel", *faster(found, _MINE, _DELTA), goal=2, sense="at least", key="P8.delta_time"),
        Check("time / no saver", *slower(found, _MINE, _NONE)),
        Check("time / InMemorySaver", *slower(found, _MINE, _MEMORY)),
        Check("beyond no saver: times as little time as SqliteSaver", *_beyond(found, _THEIRS)),
        Check("beyond no saver: times as little time as SqliteSaver with DeltaChannel", *_beyond(found, _DELTA)),
        Check("whole file, times smaller than SqliteSaver's", sizes[_THEIRS] / sizes[_MINE], goal=100, sense="at least", key="P8.disk"),
        Check("growth, times smaller than SqliteSaver's", sizes[_THEIRS] / growth),
        Check("whole file, times smaller than SqliteSaver's with DeltaChannel", sizes[_DELTA] / sizes[_MINE], goal=1.5, sense="at least", key="P8.delta_disk"),
        Check("growth, times smaller than SqliteSaver's with DeltaChannel", sizes[_DELTA] / growth),
    ]  # fmt: skip
    infos = [Time(f"{name}, {turns} turns", median(one.wall for one in spent), "s") for name, spent in found.items()]
    infos += [Time(f"{name}, file", size / 1_000, "KB") for name, size in (sizes | {"perdure, empty": empty}).items()]
    setting = (
        f"{place}, NORMAL, write-ahead log for both; {runs} runs of {turns} turns, {_TURN} of each in turn; a graph of one node, "
        f"400 bytes asked and 400 answered, messages with ids; LangGraph's own durability setting, async"
    )
    return Row("P8", f"A LangGraph run of {turns} turns", setting, checks, infos)


def _beyond(found: Rounds, peer: str) -> tuple[float, float, float]:
    """How many times the saver's own time the peer takes: what both take more than a run without a saver."""
    walls: list[float] = []
    cpus: list[float] = []
    for mine, theirs, none in zip(found[_MINE], found[peer], found[_NONE], strict=True):
        walls.append((theirs.wall - none.wall) / (mine.wall - none.wall))
        cpus.append((theirs.cpu - none.cpu) / (mine.cpu - none.cpu))
    return median(walls), min(walls), median(cpus)


def _run(folder: Path, turns: int, first: int) -> dict[str, Spent]:
    """What a run took in each lane, each beginning as often as the others."""
    with ExitStack() as open_ones:
        agents = {name: Agent(kind, open_ones.enter_context(saver)) for name, (kind, saver) in _lanes(folder).items()}
        spent = {name: Spent(0.0, 0.0) for name in agents}
        names = list(agents)
        gc.collect()
        gc.freeze()  # as in ``rounds.interleave``
        for number in range(turns // _TURN):
            shift = (number + first) % len(names)
            for name in names[shift:] + names[:shift]:
                gc.collect()
                more = agents[name].turns(_TURN)
                spent[name] = Spent(spent[name].wall + more.wall, spent[name].cpu + more.cpu)
        gc.unfreeze()
        said = {name: agent.messages() for name, agent in agents.items()}
        assert len(said[_NONE]) == 2 * turns
        assert all(one == said[_NONE] for one in said.values())
        return spent


def _lanes(folder: Path) -> dict[str, tuple[type, AbstractContextManager[Any]]]:
    def at(name: str) -> Path:
        return folder / f"{name}.db"

    return {
        _MINE: (Whole, states.perdure_saver(at(_MINE))),
        _THEIRS: (Whole, states.sqlite_saver(at(_THEIRS))),
        _DELTA: (Delta, states.sqlite_saver(at(_DELTA))),
        _MINE_DELTA: (Delta, states.perdure_saver(at(_MINE_DELTA))),
        _MEMORY: (Whole, nullcontext(InMemorySaver())),
        _NONE: (Whole, nullcontext()),
    }
