"""How values become vectors: LangGraph's ``index`` configuration, read once and checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
from langchain_core.embeddings import Embeddings
from langgraph.store.base import IndexConfig, ensure_embeddings, get_text_at_path, tokenize_path

from perdure.rooms.items import vectors
from perdure.values import limits
from perdure.values.errors import Invalid

_WHOLE = "$"


class Index:
    """The fields whose texts are embedded, the embedder, and the name of the space that its vectors live in.

    The space is the embedder's name and the number of dimensions, so vectors of another model are never compared:
    items that only have those are found without a score until they are put again. An embedder without a name of its
    own (a plain function) can be given one as ``space`` in the configuration.
    """

    def __init__(self, config: IndexConfig) -> None:
        given = cast("dict[str, Any]", dict(config))
        self.dimensions = limits.count(given.get("dims"), "index.dims", 1, vectors.DIMENSIONS)
        embed: Any = given.get("embed")
        if embed is None:
            raise Invalid("index.embed must be a function, Embeddings, or a provider and model", field="index.embed")
        distance = given.get("distance_type") or "cosine"
        if distance != "cosine":
            raise Invalid(f"vectors are compared by cosine, not by {distance!r}", field="index.distance_type")
        fields: Any = (
            given.get("fields") or given.get("text_fields") or [_WHOLE]
        )  # LangGraph's SQLite store says the latter
        self.fields = _paths([fields] if isinstance(fields, str) else fields)
        self.embeddings: Embeddings = ensure_embeddings(embed)
        space = given.get("space") or _name_of(embed)
        self.space = limits.text(f"{space}:{self.dimensions}", "index.space", limits.NAME_BYTES)

    def texts(self, value: Mapping[str, Any], index: Any) -> dict[str, str]:
        """The texts of a value that are to be embedded, by where they stand."""
        if index is False:
            return {}
        fields = self.fields if index is None else _paths(index)
        plain: Any = msgspec.to_builtins(dict(value))  # times and the like as the text that they are in JSON
        found: dict[str, str] = {}
        for path, tokens in fields:
            texts = get_text_at_path(plain, tokens)
            for number, text in enumerate(texts):
                if text.strip():
                    found[path if len(texts) == 1 else f"{path}.{number}"] = text
        return found

    def embed(self, texts: Sequence[str], queries: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
        """The vectors of texts and of queries."""
        found = self.embeddings.embed_documents(list(texts)) if texts else []
        return self._packed(found, texts), self._packed([self.embeddings.embed_query(one) for one in queries], queries)

    async def aembed(self, texts: Sequence[str], queries: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
        """The same, awaited."""
        found = await self.embeddings.aembed_documents(list(texts)) if texts else []
        asked = [await self.embeddings.aembed_query(one) for one in queries]
        return self._packed(found, texts), self._packed(asked, queries)

    def _packed(self, found: Sequence[Sequence[float]], texts: Sequence[str]) -> list[bytes]:
        if len(found) != len(texts):
            raise Invalid(f"index.embed gave {len(found)} vectors for {len(texts)} texts", field="index.embed")
        return [vectors.pack(vector, self.dimensions, "index.embed") for vector in found]


def _paths(fields: Any) -> list[tuple[str, Any]]:
    if isinstance(fields, str) or not isinstance(fields, Sequence):
        raise Invalid(f"index must be False or a list of paths, not {type(fields).__name__}", field="index")
    paths: list[tuple[str, Any]] = []
    for path in cast("Sequence[object]", fields):
        text = limits.text(path, "index", limits.NAME_BYTES)
        paths.append((text, text if text == _WHOLE else tokenize_path(text)))
    return paths


def _name_of(embed: Embeddings | Callable[..., Any] | str) -> str:
    """What an embedder is called: its provider and model, its class and model, or just ``function``."""
    if isinstance(embed, str):
        return embed
    if not isinstance(embed, Embeddings):
        return "function"
    model: object = getattr(embed, "model", None) or getattr(embed, "model_name", None) or ""
    return f"{type(embed).__name__}:{model}" if isinstance(model, str) and model else type(embed).__name__
