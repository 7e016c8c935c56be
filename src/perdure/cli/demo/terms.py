"""Words worth searching for in a history that nobody has seen before."""

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from perdure.values import limits
from perdure.values.text import query_terms

if TYPE_CHECKING:
    from perdure.rooms.conversations.values import Message
    from perdure.sync.store import Store

_WORD = re.compile(r"[^\W\d_]{5,24}")
_CONVERSATIONS = 200
_MESSAGES = 100
"""Messages of each conversation that are looked at."""


def distinctive(store: "Store", number: int) -> list[str]:
    """At most ``number`` queries: words said often in few conversations; else how the first message begins.

    With fewer than three conversations, messages are compared instead.
    """
    texts: list[list[str]] = []
    for conversation in store.query_conversations(limit=_CONVERSATIONS):
        said = [
            _said(message) for message in store.get_messages(conversation.id, _MESSAGES, roles=("user", "assistant"))
        ]
        texts.append([text for text in said if text.strip()])
    units = ["\n".join(said) for said in texts] if len(texts) >= 3 else [text for said in texts for text in said]
    counts = [Counter(word.lower() for word in _WORD.findall(unit)) for unit in units]
    spread = Counter(word for count in counts for word in count)
    best: dict[str, float] = {}
    for count in counts:
        for word, times in count.items():
            score = times * math.log(len(units) / spread[word])
            if times > 1 or spread[word] > 1:
                best[word] = max(score, best.get(word, 0.0))
    chosen = sorted((word for word in best if best[word] > 0), key=lambda word: (-best[word], word))[:number]
    if chosen:
        return chosen
    begins = (" ".join(text.split())[:40] for said in texts for text in said)
    return [text for text in begins if query_terms(text, limits.QUERY_TERMS)][:1]


def _said(message: "Message") -> str:
    """What was said in words, without tool calls."""
    from perdure.rooms.conversations.content import TextPart

    content = message.content
    return (
        content if isinstance(content, str) else "\n".join(part.text for part in content if isinstance(part, TextPart))
    )
