# Generated from perdure/services/clients.py by tools/generate_sync.py; change that file and run `make sync`.
"""Stand-ins for the clients of OpenAI and Anthropic, which are known by the names of their classes, never imported."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from perdure.rooms.conversations import calls
from perdure.rooms.conversations.calls import Api
from perdure.sync.recording import Recorder
from perdure.values.errors import Invalid

PATHS: dict[str, dict[tuple[str, ...], Api]] = {
    "openai": {
        ("chat", "completions"): "openai",
        ("beta", "chat", "completions"): "openai",
        ("responses",): "openai-responses",
    },
    "anthropic": {("messages",): "anthropic", ("beta", "messages"): "anthropic"},
}
_METHODS = ("create", "parse", "stream")
_COPIES = ("with_options", "copy")


def kind_of(client: Any) -> tuple[str, bool]:
    """The provider of a client, and whether its calls are awaited; known by the names of its classes."""
    kinds = client.__class__.__mro__
    names = {kind.__name__ for kind in kinds}
    provider = next((kind.__module__.split(".")[0] for kind in kinds if kind.__module__.split(".")[0] in PATHS), None)
    if provider is None or not names & {"AsyncAPIClient", "SyncAPIClient"}:
        raise Invalid(
            f"client must be a client of OpenAI or Anthropic, not {type(client).__name__}", field="client",
            hint="record what others do with t.record()",
        )  # fmt: skip
    return provider, "AsyncAPIClient" in names


def _type_of(real: object) -> type[object]:
    return type(real)


class Stand:
    """Stands in for a client, or for a resource on the way to a recorded method."""

    def __init__(self, real: Any, path: tuple[str, ...], paths: dict[tuple[str, ...], Api], recorder: Recorder) -> None:
        object.__setattr__(self, "_perdure", (real, path, paths, recorder))

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What it stands in for, so that ``isinstance`` goes on to hold."""
        return _type_of(object.__getattribute__(self, "_perdure")[0])

    def __getattr__(self, name: str) -> Any:
        real, path, paths, recorder = object.__getattribute__(self, "_perdure")
        found = getattr(real, name)
        api = paths.get(path)
        if api is not None and name in _METHODS:
            return _streaming(found, api, recorder) if name == "stream" else _calling(found, api, recorder)
        if not path and name in _COPIES:
            return _copying(found, paths, recorder)
        longer = (*path, name)
        if any(known[: len(longer)] == longer for known in paths):
            return Stand(found, longer, paths, recorder)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_perdure")[0], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(object.__getattribute__(self, "_perdure")[0], name)

    def __dir__(self) -> list[str]:
        return dir(object.__getattribute__(self, "_perdure")[0])

    def __repr__(self) -> str:
        return repr(object.__getattribute__(self, "_perdure")[0])

    def __enter__(self) -> Any:
        object.__getattribute__(self, "_perdure")[0].__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return object.__getattribute__(self, "_perdure")[0].__exit__(kind, error, trace)


def _copying(method: Any, paths: dict[tuple[str, ...], Api], recorder: Recorder) -> Any:
    """A method that gives another client, which is recorded too."""

    def copy(*args: Any, **kwargs: Any) -> Any:
        return Stand(method(*args, **kwargs), (), paths, recorder)

    return copy


def _calling(method: Any, api: Api, recorder: Recorder) -> Any:
    """A method that asks a model, recorded."""

    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs = _listed(api, kwargs)
        call = recorder.begin(api, kwargs)
        try:
            answer = method(*args, **kwargs)
        except Exception as error:
            call.end(error)
            raise
        if hasattr(answer, "_iterator"):
            call.watch(answer)
        else:
            call.end(None, answer)
        return answer

    return call


def _streaming(method: Any, api: Api, recorder: Recorder) -> Any:
    """A method that gives a context manager of a stream, recorded once it is entered."""

    def stream(*args: Any, **kwargs: Any) -> Any:
        kwargs = _listed(api, kwargs)
        return _Manager(method(*args, **kwargs), lambda: recorder.begin(api, kwargs))

    return stream


def _listed(api: Api, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments with messages that can be read twice."""
    name = calls.HISTORY[api]
    given: Any = kwargs.get(name)
    if isinstance(given, tuple | Iterator):
        history: list[Any] = list(given)  # pyright: ignore[reportUnknownArgumentType]
        return {**kwargs, name: history}
    return kwargs


class _Manager:
    """Stands in for the clients' managers of streams; what it gives on entering is the client's own."""

    def __init__(self, real: Any, begin: Any) -> None:
        self._real = real
        self._begin = begin

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What it stands in for."""
        return _type_of(self._real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __enter__(self) -> Any:
        call = self._begin()
        try:
            stream = self._real.__enter__()
        except Exception as error:
            call.end(error)
            raise
        call.watch(getattr(stream, "_raw_stream", stream))
        return stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return self._real.__exit__(kind, error, trace)
