"""Whole graphs on perdure's saver: the same answers and the same history as with LangGraph's saver in memory."""

import asyncio
import operator
import re
import subprocess
import sys
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from saver_tools import config_of
from typing_extensions import TypedDict

from perdure.adapters.langgraph import PerdureSaver
from perdure.values.config import PersistenceConfig


@pytest.fixture(params=["sqlite", "postgres"])
def saver(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'g.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("fresh_postgres_url")
    with PerdureSaver.from_conn_string(PersistenceConfig(url, pool_size=4)) as saver:
        yield saver


class State(TypedDict):
    """What the graph hands on."""

    log: Annotated[list[str], operator.add]
    delta: Annotated[list, DeltaChannel(lambda state, writes: [*(state or []), *[x for w in writes for x in w]], list)]
    facts: Annotated[dict, operator.or_]
    asked: str


def _say(name):
    def node(state):
        return {"log": [name], "delta": [f"{name}:{len(state['log'])}"], "facts": {name: {"seen": len(state["log"])}}}

    return node


class Inner(TypedDict):
    log: Annotated[list[str], operator.add]
    asked: str


def _ask(state):
    return {"log": ["ask"], "asked": interrupt({"question": "go on?"})}


def _inner():
    graph = StateGraph(Inner)
    graph.add_node("first", lambda state: {"log": ["inner"]})
    graph.add_node("ask", _ask)
    graph.add_edge(START, "first")
    graph.add_edge("first", "ask")
    return graph.compile()


def _worker(sent):
    return {"log": [f"worker {sent['n']}"], "delta": [f"w{sent['n']}"]}


def graph_on(saver):
    """Two nodes at once, a subgraph that interrupts, then a fan-out of workers."""
    graph = StateGraph(State)
    for name in ("left", "right", "end"):
        graph.add_node(name, _say(name))
    graph.add_node("worker", _worker)
    graph.add_node("sub", _inner())
    graph.add_edge(START, "left")
    graph.add_edge(START, "right")
    graph.add_edge(["left", "right"], "sub")
    graph.add_conditional_edges("sub", lambda _: [Send("worker", {"n": n}) for n in range(3)], ["worker"])
    graph.add_edge("worker", "end")
    graph.add_edge("end", END)
    return graph.compile(checkpointer=saver)


_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00")


def _named(found):
    """A text with each id as the number of its first appearance, so that two runs can be compared."""
    known: dict[str, str] = {}
    return _TIME.sub("then", _ID.sub(lambda one: known.setdefault(one[0], f"id{len(known)}"), found))


def history(graph, config, *, subgraphs=False):
    """All that the history of a thread says, oldest first."""
    snapshots = list(graph.get_state_history(config))[::-1]
    if subgraphs:
        snapshots = [graph.get_state(one.config, subgraphs=True) for one in snapshots]
    return [_named(repr(_Sorted(one))) for one in snapshots]


class _Sorted:
    """A snapshot whose metadata and values show in the order of their names."""

    def __init__(self, one):
        self._one = one

    def __repr__(self):
        one = self._one
        metadata = {
            k: str(v) if k != "counters_since_delta_snapshot" else {n: list(p) for n, p in v.items()}
            for k, v in (one.metadata or {}).items()
        }
        return repr(
            (
                sorted(one.values.items()),
                one.next,
                one.config,
                sorted(metadata.items()),
                one.parent_config,
                one.tasks,
                one.interrupts,
            )
        )


INPUT = {"log": ["in"], "delta": ["in"], "facts": {}, "asked": ""}


def _first_run(graph, config, **options):
    return graph.invoke(INPUT, config, **options), graph.invoke(Command(resume="yes"), config, **options)


def _fork(graph, config):
    """Time travel: from the third snapshot on with other values, and a copy of the fourth."""
    past = list(graph.get_state_history(config))
    forked = graph.update_state(past[2].config, {"log": ["fork"], "delta": ["fork"]}, as_node="sub")
    again = graph.invoke(None, forked)
    return again, graph.invoke(None, past[3].config)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_graph_answers_as_with_the_saver_in_memory(saver, durability):
    ours, theirs = graph_on(saver), graph_on(InMemorySaver())
    config = {"configurable": {"thread_id": "t", "user": "ann"}, "metadata": {"team": "x"}}
    found, wanted = ([_first_run(graph, config, durability=durability)] for graph in (ours, theirs))
    assert _named(repr(found)) == _named(repr(wanted))
    assert found[0][1]["delta"] == ["in", "left:1", "right:1", "w0", "w1", "w2", "end:11"]
    assert history(ours, config) == history(theirs, config)
    assert history(ours, config, subgraphs=True) == history(theirs, config, subgraphs=True)
    if durability != "exit":
        assert _named(repr(_fork(ours, config))) == _named(repr(_fork(theirs, config)))
    for graph in (ours, theirs):
        graph.invoke({"log": ["second"]}, config, durability=durability)
        graph.invoke(Command(resume="again"), config, durability=durability)
    assert history(ours, config) == history(theirs, config)


def test_an_awaited_graph_answers_likewise(saver):
    async def run(graph):
        config = config_of()
        found = [await graph.ainvoke(INPUT, config, durability="async")]
        found += [await graph.ainvoke(Command(resume="yes"), config, durability="async")]
        return found, [one async for one in graph.aget_state_history(config)]

    (ours, past), (theirs, wanted) = (asyncio.run(run(graph_on(one))) for one in (saver, InMemorySaver()))
    assert _named(repr(ours)) == _named(repr(theirs))
    assert [_named(repr(_Sorted(one))) for one in past[::-1]] == [_named(repr(_Sorted(one))) for one in wanted[::-1]]


def _state(graph, config):
    return _named(repr(_Sorted(graph.get_state(config))))


@pytest.mark.parametrize("frequency", [3, 1000])
def test_delta_channels_survive_everything_that_takes_checkpoints_away(saver, frequency):
    """A naive prune would leave nothing of them, and say nothing."""
    spec = DeltaChannel(lambda state, writes: [*(state or []), *writes], list, snapshot_frequency=frequency)

    class Deltas(TypedDict):
        items: Annotated[list, spec]
        other: Annotated[list, DeltaChannel(lambda state, writes: [*(state or []), *writes], list)]
        n: int

    def step(state):
        return {"items": f"a{state.get('n', 0)}", "n": state.get("n", 0) + 1}

    graph = StateGraph(Deltas)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph = graph.compile(checkpointer=saver)
    config = config_of()
    for number in range(7):
        given = {"items": f"in{number}", **({"other": "once"} if number == 1 and frequency == 1000 else {})}
        graph.invoke(given, {**config, "run_id": f"00000000-0000-0000-0000-{number:012}"})
    wanted = graph.get_state(config).values
    assert len(wanted["items"]) == 14
    past = [(one.config, one.values) for one in graph.get_state_history(config)]
    saver.copy_thread("t", "copy")
    assert [one.values for one in graph.get_state_history(config_of("copy"))] == [values for _, values in past]
    saver.delete_for_runs([f"00000000-0000-0000-0000-{number:012}" for number in (2, 3)])
    assert graph.get_state(config).values == wanted
    for where, values in past:
        if saver.get_tuple(where) is not None:
            assert graph.get_state(where).values == values
    forked = graph.update_state(past[3][0], {"items": "fork"})
    fork = graph.get_state(forked).values
    assert fork["items"] == [*past[3][1]["items"], "fork"]
    for thread, want in (("t", fork), ("copy", wanted)):
        before = len(list(saver.list(config_of(thread))))
        saver.prune([thread])
        assert graph.get_state(config_of(thread)).values == want
        left = len(list(saver.list(config_of(thread))))
        assert left < before or frequency == 1000
        saver.prune([thread])
        assert len(list(saver.list(config_of(thread)))) == left
        graph.invoke({"items": "on"}, config_of(thread))
        assert graph.get_state(config_of(thread)).values["items"][: len(want["items"]) + 1] == [*want["items"], "on"]


def test_state_is_the_same_after_a_restart(tmp_path):
    """In another process, by another object, with delta channels and subgraphs."""
    url = f"sqlite:///{tmp_path / 'r.db'}"
    with PerdureSaver.from_conn_string(url) as saver:
        graph = graph_on(saver)
        graph.invoke(INPUT, config_of())
        before = history(graph, config_of())
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "from test_langgraph_graphs import Command, PerdureSaver, config_of, graph_on, history\n"
        "with PerdureSaver.from_conn_string(sys.argv[1]) as saver:\n"
        "    graph = graph_on(saver)\n"
        "    print('\\n'.join(history(graph, config_of())))\n"
        "    graph.invoke(Command(resume='yes'), config_of())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url, ":".join(sys.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == before
    with PerdureSaver.from_conn_string(url) as saver:
        assert graph_on(saver).get_state(config_of()).values["delta"][-1] == "end:11"


def test_messages_grow_over_many_turns(saver):
    """The same list comes back at every step of every turn."""
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [AIMessage(f"echo {state['messages'][-1].content}")]})
    graph.add_edge(START, "model")
    graph = graph.compile(checkpointer=saver)
    for turn in range(12):
        found: dict[str, Any] = graph.invoke({"messages": [HumanMessage(f"turn {turn}")]}, config_of())
    said = [text for turn in range(12) for text in (f"turn {turn}", f"echo turn {turn}")]
    assert [one.content for one in found["messages"]] == said
    lengths = [len(one.values.get("messages", ())) for one in graph.get_state_history(config_of())]
    assert lengths == sorted(lengths, reverse=True)
    graph.update_state(config_of(), {"messages": [HumanMessage("edited", id=found["messages"][4].id)]})
    assert [one.content for one in graph.get_state(config_of()).values["messages"]] == [*said[:4], "edited", *said[5:]]
