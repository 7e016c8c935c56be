"""Tokens and money of one message.

Counts are exact integers. Money is an integer of nano-units (10^-9 of the currency), so that sums over any
number of messages are exact; people read it as a ``Decimal`` in whole units.
"""

from copy import copy
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec.structs import force_setattr

from perdure.values import limits
from perdure.values.errors import Invalid, OverLimit

NANO_DIGITS = 9
COST_TEXT_BYTES = 64
"""A cost written as text."""

_SUM: Any = None  # stands for "input plus output" until __post_init__ has counted
_NOTHING = Decimal(0)
_EXACT = Context(prec=100)  # not the caller's, which could round


class TokenUsage(msgspec.Struct, frozen=True):
    """What one message cost.

    ``input_tokens``, ``output_tokens`` and ``total_tokens`` are counts from 0 to 10^12. The total defaults
    to the sum of the other two; one below the sum is Invalid, one above is kept, because some providers count
    reasoning apart. ``cost`` is money in whole units, given as Decimal, int, text or float and kept as Decimal.
    More than 9 decimals are Invalid, never rounded; only a float, which has no exact decimals of its own, is
    read by its shortest text (``repr``) and rounded half-even to nano-units. None is 0.

    Raises:
        Invalid: a count or the cost is negative or no number, the total is below the sum, the model is blank.
        OverLimit: a count, the cost or the model's name is above its limit.

    Example:
        >>> TokenUsage(input_tokens=120, output_tokens=30, model="gpt-5", cost="0.00135").total_tokens
        150
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = _SUM
    model: str | None = None
    cost: Decimal = _NOTHING

    if TYPE_CHECKING:  # what may be given is wider than what is kept

        def __init__(
            self,
            input_tokens: int = 0,
            output_tokens: int = 0,
            total_tokens: int | None = None,
            model: str | None = None,
            cost: Decimal | float | str | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        total = limits.count(self.input_tokens, "input_tokens", 0, limits.TOKENS)
        total += limits.count(self.output_tokens, "output_tokens", 0, limits.TOKENS)
        given = cast("int | None", self.total_tokens)
        if given is not None:
            limits.count(given, "total_tokens", 0, limits.TOKENS)
            if given < total:
                raise Invalid(f"total_tokens is {given}, below the sum of its parts, {total}", field="total_tokens")
        else:
            force_setattr(self, "total_tokens", limits.count(total, "total_tokens", 0, limits.TOKENS))
        if self.model is not None:
            limits.text(self.model, "model", limits.NAME_BYTES)
        if self.cost is not _NOTHING:
            money: Any = self.cost
            force_setattr(self, "cost", _NOTHING if money is None else cost_of_nanos(nanos_of_cost(money)))

    @staticmethod
    def stored(
        input_tokens: int, output_tokens: int, total_tokens: int, model: str | None, nanos: int | None
    ) -> "TokenUsage":
        """What was stored, without checking it again; sums of many messages may be above the limits of one."""
        usage = copy(_EMPTY)  # a copy skips __post_init__
        force_setattr(usage, "input_tokens", input_tokens)
        force_setattr(usage, "output_tokens", output_tokens)
        force_setattr(usage, "total_tokens", total_tokens)
        force_setattr(usage, "model", model)
        force_setattr(usage, "cost", cost_of_nanos(nanos))
        return usage

    @property
    def cost_nanos(self) -> int:
        """The cost as an integer of nano-units."""
        return int(self.cost.scaleb(NANO_DIGITS, _EXACT))


_EMPTY = TokenUsage()


def nanos_of_cost(cost: object, field: str = "cost") -> int:
    """Money in whole units (Decimal, int, float or text) as an integer of nano-units, from 0 to 10^13.

    Raises:
        Invalid: it is no finite number, negative, or has more than 9 decimals (a float is rounded instead).
        OverLimit: it is above 10^13 nano-units.
    """
    amount = _decimal(cost, field)
    if not amount.is_finite():
        raise Invalid(f"{field} must be finite, not {amount}", field=field)
    if not amount:
        return 0
    if amount.is_signed():
        raise Invalid(f"{field} must not be negative, and is {cost}", field=field)
    # Integer arithmetic only: the caller's decimal context could round.
    _, digits, exponent = amount.as_tuple()
    shift = int(exponent) + NANO_DIGITS
    nanos = 0
    if amount.adjusted() > 2 * NANO_DIGITS:  # before a power of a hostile exponent is computed
        nanos = limits.COST_NANOS + 1
    elif shift >= 0:
        nanos = int("".join(map(str, digits))) * 10**shift
    else:
        whole = int("".join(map(str, digits[:shift])) or "0")
        rest = digits[shift:] if -shift <= len(digits) else (0, *digits)
        if any(rest) and not isinstance(cost, float):
            raise Invalid(f"{field} has more than {NANO_DIGITS} decimals: {cost}", field=field)
        half = (rest[0], any(rest[1:]))
        nanos = whole + (half > (5, False) or (half == (5, False) and whole % 2 == 1))
    if nanos > limits.COST_NANOS:
        raise OverLimit(
            f"{field} is {cost}; the limit is {limits.COST_NANOS:,} nano-units", field=field, limit=limits.COST_NANOS
        )
    return nanos


@lru_cache(4096)
def cost_of_nanos(nanos: int | None) -> Decimal:
    """Stored nano-units as money in whole units, without trailing zeros; nothing is 0."""
    if not nanos:
        return _NOTHING
    whole, fraction = divmod(nanos, 10**NANO_DIGITS)
    decimals = f"{fraction:0{NANO_DIGITS}d}".rstrip("0")
    return Decimal(f"{whole}.{decimals}" if decimals else str(whole))


def _decimal(cost: object, field: str) -> Decimal:
    if isinstance(cost, Decimal):
        return cost
    if isinstance(cost, bool) or not isinstance(cost, int | float | str):
        raise Invalid(f"{field} must be a Decimal, a number or text, not {type(cost).__name__}", field=field)
    if isinstance(cost, str):
        limits.text(cost, field, COST_TEXT_BYTES)
    if isinstance(cost, int) and cost > limits.COST_NANOS:  # also keeps text of a huge integer from being made
        raise OverLimit(f"{field} is above {limits.COST_NANOS:,}", field=field, limit=limits.COST_NANOS)
    try:
        return Decimal(repr(cost) if isinstance(cost, float) else cost)
    except InvalidOperation:
        raise Invalid(f"{field} is not a number: {cost!r}", field=field) from None
