"""What is written: the same messages for everybody, from one seed."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import perdure
from perdure.values.ids import new_id

NANOS = 1_000_000_000
_SYLLABLES = ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu")
_WORDS = 20_000
_COMMON = "deployment"
"""A word that is in every message, for searches that match everything."""


class Said(NamedTuple):
    """One message, with its token usage spelt out for those who write rows by hand."""

    role: str
    text: str
    input_tokens: int
    output_tokens: int
    cost_nanos: int
    usage: perdure.TokenUsage
    model: str = "large-1"

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def draft(self) -> perdure.Draft:
        """The same for ``add_messages``."""
        return perdure.Draft(self.role, self.text, token_usage=self.usage)


def word(rank: int) -> str:
    """The word at a place of the vocabulary; the higher the rarer."""
    text = ""
    rank += len(_SYLLABLES)
    while rank:
        rank, digit = divmod(rank, len(_SYLLABLES))
        text += _SYLLABLES[digit]
    return text


COMMON_WORD = _COMMON
RARE_WORD = "quokka"
"""A word that is in five messages, however many there are."""


def messages(count: int, seed: int = 7, length: int = 230) -> list[Said]:
    """Messages of about ``length`` characters whose words are as unevenly spread as in real text."""
    rng = random.Random(seed)
    return [_said(rng, index, length) for index in range(count)]


def _said(rng: random.Random, index: int, length: int) -> Said:
    words = [_COMMON]
    size = len(_COMMON)
    while size < length:
        words.append(word(int(_WORDS ** rng.random()) - 1))
        size += len(words[-1]) + 1
    given, made = rng.randrange(50, 400), rng.randrange(10, 90)
    cost = given * 2_500 + made * 10_000
    usage = perdure.TokenUsage(given, made, model="large-1", cost=f"{cost / NANOS:.9f}")
    return Said(("user", "assistant")[index % 2], " ".join(words), given, made, cost, usage)


def cycle(corpus: list[Said], start: int = 0) -> Iterator[Said]:
    """The messages of a corpus, over and over."""
    index = start
    while True:
        yield corpus[index % len(corpus)]
        index += 1


def ids(count: int) -> list[str]:
    """Fresh ids as perdure makes them, for those who write rows by hand."""
    return [new_id() for _ in range(count)]
