"""The process that the demo kills: it writes turns as fast as it can and reports each one that was acknowledged.

``python -m perdure.cli.demo.writer TENANT CONVERSATION FIRST``; the store is ``PERDURE_URL``, so that no password
shows in the list of processes.
"""

import os
import sys

import perdure.sync
from perdure.rooms.conversations.draft import Draft
from perdure.rooms.conversations.usage import TokenUsage


def turn(number: int) -> list[Draft]:
    """A question and its answer; both are written in one transaction."""
    usage = TokenUsage(40 + number % 7, 12 + number % 5, model="demo-1", cost=f"0.00000{1 + number % 9}")
    mark = {"turn": number}
    return [
        Draft("user", f"What does buoy {number} say?", metadata=mark),
        Draft("assistant", f"Buoy {number}: 1.{number % 10} m of swell.", metadata=mark, token_usage=usage),
    ]


def main() -> None:
    """Writes until it is killed, or until nobody reads its reports any longer."""
    tenant, conversation, first = sys.argv[1:4]
    with perdure.sync.open() as whole:
        store = whole.for_tenant(tenant)
        number = int(first)
        while True:
            store.add_messages(conversation, turn(number))
            os.write(1, b"%d\n" % number)  # straight to the pipe: what was acknowledged is known at once
            number += 1


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(1)
