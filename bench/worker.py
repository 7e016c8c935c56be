"""What the bench runs in processes of their own: ``python -m bench.worker KIND ...``."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import perdure
from bench import data, lanes
from perdure.values.ids import new_id

Add = Callable[[data.Said], Awaitable[object]]


async def together(path: Path, count: int) -> None:
    """Adds messages with 64 tasks that wait for the disk."""
    corpus = data.messages(512)
    async with perdure.open(perdure.PersistenceConfig(lanes.url(path), durability="full")) as store:
        await store.create_conversation("agent", "user-0", id="talk-0")

        async def agent(said: list[data.Said]) -> None:
            for one in said:
                await store.add_message("talk-0", one.role, one.text, token_usage=one.usage)

        todo = [corpus[index % len(corpus)] for index in range(count)]
        await asyncio.gather(*(agent(todo[number::64]) for number in range(64)))


async def one_of_many(library: str, path: Path, number: int, durability: lanes.Durability) -> None:
    """Answers each line "SECONDS" on standard input with what it wrote in that time, as a line of JSON."""
    name = lanes.talk(number)
    if library == "perdure":
        async with perdure.open(perdure.PersistenceConfig(lanes.url(path), durability=durability)) as store:
            if await store.get_conversation(name) is None:
                await store.create_conversation("agent", f"user-{number}", id=name)
            await _serve(lambda one: store.add_message(name, one.role, one.text, token_usage=one.usage))
    elif library == "raw":
        by_hand = lanes.Raw(path, durability)

        async def add(one: data.Said) -> None:
            by_hand.db.execute("begin immediate")
            by_hand.add(name, new_id(), one)
            by_hand.db.execute("commit")

        await _serve(add)
    else:
        from agents import SQLiteSession

        session = SQLiteSession(name, path)
        await _serve(lambda one: session.add_items([{"role": one.role, "content": one.text}]))
        session.close()


async def _serve(add: Add) -> None:
    said = data.cycle(data.messages(128))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(await _write(add, said, float(line))), flush=True)


async def _write(add: Add, said: object, seconds: float) -> dict[str, object]:
    """Writes one message after another until time is up."""
    waits: list[float] = []
    errors: list[str] = []
    started = now = time.monotonic()
    while now < started + seconds:
        one = next(said)
        try:
            await add(one)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}"[:200])
        else:
            waits.append(time.monotonic() - now)
        now = time.monotonic()
    return {"started": started, "ended": now, "waits": waits, "errors": errors}


def main(arguments: list[str]) -> None:
    """Runs the piece of work that the arguments name."""
    kind, *rest = arguments
    if kind == "together":
        asyncio.run(together(Path(rest[0]), int(rest[1])))
    elif kind == "one_of_many":
        asyncio.run(one_of_many(rest[0], Path(rest[1]), int(rest[2]), rest[3]))
    else:
        raise SystemExit(f"there is no work called {kind}")


if __name__ == "__main__":
    main(sys.argv[1:])
