"""Full-text search over messages."""

import msgspec

from perdure.rooms.conversations.content import plain_text
from perdure.rooms.conversations.values import Message, content_of, message_of
from perdure.rooms.texts import ops as texts
from perdure.services.handle import Handle
from perdure.values import limits
from perdure.values.rank import Bm25
from perdure.values.snippet import snippet
from perdure.values.text import query_terms

_SCORER = Bm25()


class SearchHit(msgspec.Struct, frozen=True):
    """A message that was found: its BM25 score (above 0, no upper bound), and where its text matches."""

    message: Message
    score: float
    snippet: str


def text_of(body: str, form: int) -> str:
    """The searchable text of a message's stored form."""
    return plain_text(content_of(body, form))


class SearchVerbs(Handle):
    """Find messages by what they say."""

    async def search_messages(
        self, query: str, user_id: str | None = None, conversation_id: str | None = None, limit: int = 10
    ) -> list[SearchHit]:
        """The messages that match best, best first, with snippets in which ``**`` surrounds what matched.

        Any word of the query counts, in any form the English stemmer folds together; punctuation and operators mean
        nothing. Scores are BM25 over the messages of the user (of the whole tenant without ``user_id``), so they tell
        nothing of other users. What was committed before the call is found, what was deleted is not. At most 1,000.
        """
        limits.text(query, "query", limits.QUERY_BYTES, blank=True)
        for name, value in (("user_id", user_id), ("conversation_id", conversation_id)):
            if value is not None:
                limits.identifier(value, name)
        limits.count(limit, "limit", 0, limits.PAGE)
        terms = query_terms(query, limits.QUERY_TERMS)
        if not terms or limit == 0:
            return []
        await self.absorb_text()
        found = await self._run(texts.search(terms, user_id, conversation_id, limit, _SCORER))
        return [_hit(one, terms) for one in found]

    async def absorb_text(self) -> int:
        """How many batches of new messages the text index took in; searches and a chore call it."""
        if not await self._run(texts.behind()):
            return 0
        batches, cursor = 0, None
        while True:
            cursor = await self._run(texts.absorb(cursor, text_of))
            batches += 1
            if cursor is None:
                return batches

    async def rebuild_text(self) -> None:
        """Throws the text index of this tenant away and builds it again from the messages."""
        await self._run(texts.clear())
        await self.absorb_text()


def _hit(found: texts.Found, terms: list[str]) -> SearchHit:
    message = message_of(found.row, found.conversation_id)
    return SearchHit(message, found.score, snippet(message.text, terms))
