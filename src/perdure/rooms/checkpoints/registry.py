"""The types that a program registered: how each is taken apart into named fields, and made again.

What is stored of a value is the durable name it was registered under, the version, and its fields. Reading looks the
name up here; no path to any code is stored, so that no stored byte decides what is imported or called.

Dataclasses and pydantic models are made without running ``__init__``, ``__post_init__`` or validators: what comes
back is what was stored, not what a constructor would make of it. A class that needs more gives ``encode`` and
``decode``.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, cast
from uuid import UUID

import msgspec

from perdure.rooms.checkpoints import arrays
from perdure.rooms.checkpoints.leaves import Foreign
from perdure.values import limits
from perdure.values.errors import Invalid, Undecodable

NATIVE = frozenset({
    type(None), bool, int, float, str, bytes, bytearray, list, tuple, set, frozenset, dict,
    datetime, date, time, timedelta, UUID, Decimal, Foreign, type(msgspec.UNSET), object, type,
})  # fmt: skip
"""Types that cannot be registered: the codec knows them itself, or they are every value's."""

FIELDS_SET, EXTRA, PRIVATE = 0, 1, 2
"""Keys beside a pydantic model's fields: the names that were given, what it allowed beyond them, private attributes."""


class Form(Enum):
    """How a type is taken apart."""

    DATACLASS = "dataclass"
    STRUCT = "struct"
    MODEL = "model"
    ENUM = "enum"
    FLAG = "flag"
    CUSTOM = "custom"


class Entry(msgspec.Struct, frozen=True):
    """A registered type."""

    name: str
    cls: type
    version: int
    form: Form
    fields: tuple[str, ...]
    encode: Callable[[Any], Any] | None
    decode: Callable[[Any], Any] | None
    upgrade: Callable[[int, Any], Any] | None


class Registry:
    """Which types a checkpoint may hold beside Python's own, and who reads foreign values. Begins empty."""

    def __init__(self) -> None:
        self._by_name: dict[str, Entry] = {}
        self._by_class: dict[type, Entry] = {}
        self._loaders: dict[str, Callable[[bytes], Any]] = {}

    def register_type(
        self,
        name: str,
        cls: type,
        version: int = 1,
        *,
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
        upgrade: Callable[[int, Any], Any] | None = None,
    ) -> None:
        """Lets checkpoints hold values of exactly ``cls``, under a durable ``name``.

        Dataclasses, msgspec structs, pydantic models (version 2) and enums need no more; any other class needs
        ``encode`` (a value to anything that a checkpoint can hold) and ``decode`` (that back to a value).
        ``version`` is at least 1; ``upgrade(stored_version, fields)`` answers the fields of this version for those of
        an older one. ``fields`` is a dict by name (``name`` of an enum's member, ``value`` of a flag), or what ``encode``
        answered. Registering a class again under its name replaces how it is read and written.

        Raises ``Invalid`` for a name that stands for another class, a class that has another name, a class of Python's
        own values, and a class that cannot be taken apart without ``encode`` and ``decode``.
        """
        limits.text(name, "name", limits.NAME_BYTES)
        limits.count(version, "version", 1, limits.TYPE_VERSION)
        if not isinstance(cls, type):
            raise Invalid(f"cls must be a class, not {type(cls).__name__}", field="cls")
        if cls in NATIVE or arrays.is_numbers(cls):
            raise Invalid(
                f"{cls.__qualname__} cannot be registered: checkpoints hold its values as they are", field="cls"
            )
        if (encode is None) != (decode is None):
            raise Invalid("encode and decode go together", field="decode" if decode is None else "encode")
        for field, call in (("encode", encode), ("decode", decode), ("upgrade", upgrade)):
            if call is not None and not callable(call):
                raise Invalid(f"{field} must be callable, not {type(call).__name__}", field=field)
        known = self._by_name.get(name)
        if known is not None and known.cls is not cls:
            raise Invalid(f"the name {name!r} stands for {called(known.cls)} already", field="name")
        known = self._by_class.get(cls)
        if known is not None and known.name != name:
            raise Invalid(f"{called(cls)} is registered as {known.name!r} already", field="cls")
        form = Form.CUSTOM if encode is not None else form_of(cls)
        if form is None:
            raise Invalid(
                f"{called(cls)} is no dataclass, msgspec struct, pydantic model or enum: give encode and decode",
                field="cls",
            )
        entry = Entry(name, cls, version, form, _field_names(cls, form), encode, decode, upgrade)
        self._by_name[name] = self._by_class[cls] = entry

    def foreign(self, codec: str, load: Callable[[bytes], Any]) -> None:
        """Reads foreign values of this codec with ``load``; without it they are read as ``Foreign``. Raises ``Invalid``."""
        limits.text(codec, "codec", limits.NAME_BYTES)
        if not callable(load):
            raise Invalid(f"load must be callable, not {type(load).__name__}", field="load")
        self._loaders[codec] = load

    def entry_of(self, cls: type) -> Entry | None:
        """The entry of exactly this class."""
        return self._by_class.get(cls)

    def make(self, row: Any) -> Any:
        """The value that a stored row stands for. Raises ``Undecodable``, naming the type."""
        if not isinstance(row, list) or len(row) < 3:  # pyright: ignore[reportUnknownArgumentType]
            raise Undecodable("a stored object has no name, version and fields")
        name, version, *rest = cast("list[Any]", row)
        if type(name) is not str or type(version) is not int or version < 1:
            raise Undecodable("a stored object has no name, version and fields")
        shown = name[:200]
        entry = self._by_name.get(name)
        if entry is None:
            raise Undecodable(
                f"a stored value is of the type {shown!r}, which is not registered",
                hint=f"checkpointer.register_type({shown!r}, ...) before reading",
                type=shown,
            )
        if version > entry.version:
            raise Undecodable(
                f"a stored value is of version {version} of the type {shown!r}; this program knows version {entry.version}",
                hint="a newer program wrote it",
                type=shown,
            )
        try:
            return _made(entry, version, rest)
        except (Undecodable, MemoryError):
            raise
        except Exception as error:
            raise Undecodable(
                f"a stored value of the type {shown!r}, version {version}, cannot be made: {type(error).__name__}: {error}",
                type=shown,
            ) from error

    def load(self, value: Foreign) -> Any:
        """What a foreign value stands for: itself when nobody reads it. Raises ``Undecodable``, naming the codec."""
        loader = self._loaders.get(value.codec)
        if loader is None:
            return value
        try:
            return loader(value.data)
        except (Undecodable, MemoryError):
            raise
        except Exception as error:
            raise Undecodable(
                f"a value of the codec {value.codec[:200]!r} cannot be read: {type(error).__name__}: {error}",
                codec=value.codec[:200],
            ) from error


def called(cls: type) -> str:
    """A class as one writes it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def form_of(cls: type) -> Form | None:
    """How a class can be taken apart by itself; None when it cannot."""
    if issubclass(cls, Flag):
        return Form.FLAG
    if issubclass(cls, Enum):
        return Form.ENUM
    if issubclass(cls, msgspec.Struct):
        return Form.STRUCT
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return Form.MODEL
    if dataclasses.is_dataclass(cast("Any", cls)):
        return Form.DATACLASS
    return None


def _field_names(cls: Any, form: Form) -> tuple[str, ...]:
    if form is Form.DATACLASS:
        return tuple(field.name for field in dataclasses.fields(cls))
    if form is Form.STRUCT:
        return cls.__struct_fields__
    return ()  # a model's may still change, by model_rebuild


# -- apart ---------------------------------------------------------------------------------------------------------------


def take_apart(entry: Entry, value: Any) -> list[Any]:
    """The row that stands for a value: [name, version, field, value, ...] or [name, version, value]."""
    row: list[Any] = [entry.name, entry.version]
    if entry.encode is not None:
        row.append(entry.encode(value))
    elif entry.form is Form.ENUM:
        row += ("name", value.name)
    elif entry.form is Form.FLAG:
        row += ("value", value.value)
    elif entry.form is Form.MODEL:
        held: dict[str, Any] = value.__dict__
        for name in cast("Any", entry.cls).model_fields:
            if name in held:
                row += (name, held[name])
        row += (FIELDS_SET, sorted(value.__pydantic_fields_set__))
        if value.__pydantic_extra__:
            row += (EXTRA, value.__pydantic_extra__)
        if value.__pydantic_private__ is not None:
            row += (PRIVATE, value.__pydantic_private__)
    else:
        for name in entry.fields:
            row += (name, getattr(value, name))
    return row


# -- together ------------------------------------------------------------------------------------------------------------


def _made(entry: Entry, version: int, rest: list[Any]) -> Any:
    stored, beside = _stored(rest)
    if version < entry.version:
        if entry.upgrade is None:
            raise Undecodable(
                f"a stored value is of version {version} of the type {entry.name!r}, which is at version {entry.version}",
                hint="register it with upgrade=",
                type=entry.name,
            )
        stored = entry.upgrade(version, stored)
    elif (len(rest) == 1) != (entry.form is Form.CUSTOM):
        raise ValueError("it was written in another way under the same version")
    if entry.decode is not None:
        return entry.decode(stored)
    if not isinstance(stored, Mapping):
        raise TypeError("its fields are not named")
    fields = {**cast("Mapping[str, Any]", stored)}
    if entry.form is Form.ENUM:
        return entry.cls.__members__[fields["name"]]  # type: ignore[attr-defined]
    if entry.form is Form.FLAG:
        return cast("Any", entry.cls)(fields["value"])
    if entry.form is Form.MODEL:
        return _made_model(entry.cls, fields, beside)
    return _made_dataclass(entry, fields) if entry.form is Form.DATACLASS else _made_struct(entry, fields)


def _stored(rest: list[Any]) -> tuple[Any, dict[int, Any]]:
    """The fields by name (or the one value), and what is beside them by number."""
    if len(rest) == 1:
        return rest[0], {}
    if len(rest) % 2:
        raise ValueError("a field has no value")
    fields: dict[str, Any] = {}
    beside: dict[int, Any] = {}
    for key, value in zip(rest[::2], rest[1::2], strict=True):
        if type(key) is str:
            fields[key] = value
        elif type(key) is int and key in (FIELDS_SET, EXTRA, PRIVATE):
            beside[key] = value
        else:
            raise TypeError("a field has no name")
    if 2 * (len(fields) + len(beside)) != len(rest):
        raise ValueError("a field is stored twice")
    return fields, beside


def _check_known(fields: dict[str, Any], known: Mapping[str, Any] | tuple[str, ...]) -> None:
    lost = [name for name in fields if name not in known]
    if lost:
        raise ValueError(
            f"the type has no field {lost[0]!r} any more: a new version with upgrade= can say what becomes of it"
        )


def _made_dataclass(entry: Entry, fields: dict[str, Any]) -> Any:
    _check_known(fields, entry.fields)
    cls = cast("Any", entry.cls)
    value: Any = cls.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.name in fields:
            content = fields[field.name]
        elif field.default is not dataclasses.MISSING:
            content = field.default
        elif field.default_factory is not dataclasses.MISSING:
            content = field.default_factory()
        else:
            raise ValueError(f"the field {field.name!r} was not stored and has no default")
        object.__setattr__(value, field.name, content)
    return value


def _made_struct(entry: Entry, fields: dict[str, Any]) -> Any:
    _check_known(fields, entry.fields)
    value = entry.cls(**fields)
    for name, content in fields.items():
        if getattr(value, name) is not content:  # a __post_init__ changed it
            msgspec.structs.force_setattr(value, name, content)
    return value


def _made_model(cls: Any, fields: dict[str, Any], beside: dict[int, Any]) -> Any:
    known = cls.model_fields
    _check_known(fields, known)
    for name, field in known.items():
        if name in fields:
            continue
        if field.is_required():
            raise ValueError(f"the field {name!r} was not stored and has no default")
        takes = getattr(field, "default_factory_takes_validated_data", False)
        fields[name] = field.get_default(call_default_factory=True, **({"validated_data": fields} if takes else {}))
    given: Any = beside.get(FIELDS_SET, [])
    if not isinstance(given, list) or not all(type(name) is str for name in cast("list[Any]", given)):
        raise TypeError("the fields that were given are names")
    private, extra = beside.get(PRIVATE), beside.get(EXTRA)
    if private is not None and not (isinstance(private, dict) and private.keys() <= cls.__private_attributes__.keys()):
        raise ValueError("the type has not these private attributes any more")
    allows = cls.model_config.get("extra") == "allow"
    if extra is not None and not (allows and isinstance(extra, dict)):
        raise ValueError("the type allows no extra fields any more")
    value = cls.__new__(cls)
    value.__setstate__({
        "__dict__": {name: fields[name] for name in known},
        "__pydantic_fields_set__": set(cast("list[str]", given)) if FIELDS_SET in beside else set(fields),
        "__pydantic_extra__": (extra or {}) if allows else None,
        "__pydantic_private__": _private_defaults(cls) if private is None else private,
    })  # fmt: skip
    return value


def _private_defaults(cls: Any) -> dict[str, Any] | None:
    """The private attributes of a model that was stored before it had any."""
    made = {name: private.get_default() for name, private in cls.__private_attributes__.items()}
    undefined = sys.modules["pydantic_core"].PydanticUndefined
    return {name: value for name, value in made.items() if value is not undefined} if made else None
