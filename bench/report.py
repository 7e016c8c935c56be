"""What was measured, as text for a terminal and as ``docs/benchmarks.md``."""

import tomllib
from pathlib import Path
from typing import Any

from bench.rounds import Check, Row, Time
from bench.rows import names

_WHY = Path(__file__).with_name("why.toml")
PAGE = Path("docs/benchmarks.md")
_HEAD = """# Benchmarks

Written by `python -m bench --write-docs` (`make bench` measures on your machine). One run interleaves perdure, the raw
limit of the engine and the other libraries in rounds on the same data, and compares figures of the same round; a ratio
is the median of the rounds, with the worst round beside it. Times are information: they depend on the machine and on
what else it did. How each lane works stands in `bench/lanes.py`, `bench/peers.py` and `bench/rows/`.

The raw limit writes the same rows, totals and index entries with perdure's own statements and nothing around them.
"""


def number(value: float, unit: str) -> str:
    """A figure with its unit, at three digits."""
    if unit == "":
        return f"{value:,.0f}"
    if unit == "/s":
        return f"{value:,.0f} /s"
    if unit == "exponent":
        return f"n^{value:.2f}"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text}{unit}" if unit == "x" else f"{text} {unit}"


def goal(check: Check) -> str:
    """The goal in words, "" without one."""
    if check.goal is None:
        return ""
    if check.goal == 0:
        return "none"
    sign = {"at most": "<=", "at least": ">=", "below": "<"}[check.sense]
    every = ", every round" if check.every_round else ""
    return f"{sign} {number(check.goal, check.unit)}{every}"


def verdict(check: Check) -> str:
    return {True: "met", False: "MISSED", None: ""}[check.met]


def _worst(check: Check) -> str:
    if check.worst is None:
        return ""
    return number(check.worst, "us" if check.unit == "exponent" else check.unit)


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _figures(row: Row) -> list[str]:
    """The table of a row's figures."""
    if any(check.unit == "exponent" for check in row.checks):
        heads = ["", "growth", "a call at the largest size", "goal", ""]
        return _table(heads, [
            [check.what, number(check.value, check.unit), _worst(check), goal(check), verdict(check)] for check in row.checks
        ])  # fmt: skip
    heads = ["", "median", "worst round", "in CPU time", "goal", ""]
    return _table(heads, [
        [check.what, number(check.value, check.unit), _worst(check), _cpu(check), goal(check), verdict(check)]
        for check in row.checks
    ])  # fmt: skip


def _cpu(check: Check) -> str:
    return "" if check.cpu is None else number(check.cpu, check.unit)


def plain(row: Row) -> str:
    """A row for a terminal."""
    lines = [f"\n{row.name}  {row.title}", f"  {row.setting}"]
    width = max((len(check.what) for check in row.checks), default=0)
    for check in row.checks:
        worst = _worst(check)
        beside = f"({worst} a call)" if check.unit == "exponent" else f"(worst {worst})" if worst else ""
        cpu = f"CPU {_cpu(check)}" if check.cpu is not None else ""
        lines.append(
            f"  {check.what:<{width}}  {number(check.value, check.unit):>12}  {beside:<18} {cpu:<14} {goal(check):<22} {verdict(check)}"
        )
    lines += [f"    {time.what:<54} {number(time.value, time.unit):>12}" for time in row.times]
    lines += [f"  {note}" for note in row.notes]
    return "\n".join(lines)


def page(rows: dict[str, Row], facts: dict[str, str]) -> str:
    """The whole page, rows in order of their numbers."""
    known = [rows[name] for name in names() if name in rows]
    why = tomllib.loads(_WHY.read_text(encoding="utf-8"))
    lines = [_HEAD, "## Machine", "", *_table(["", ""], [[name, fact] for name, fact in facts.items()]), ""]
    lines += ["## Goals", ""]
    judged = [
        (row, check) for row in known for check in row.checks if check.met is not None and check.unit != "exponent"
    ]
    goals = [
        [row.name, check.what, number(check.value, check.unit), goal(check), verdict(check)] for row, check in judged
    ]
    lines += [*_table(["", "what", "median", "goal", ""], goals), ""]
    for row in known:
        lines += _section(row, why)
    return "\n".join(lines).rstrip() + "\n"


def _section(row: Row, why: dict[str, Any]) -> list[str]:
    setting = f"{row.setting[0].upper()}{row.setting[1:]}."
    lines = [f"## {row.name}: {row.title}", "", f"{row.date}, {row.mode} run, {row.load}. {setting}", ""]
    lines += [*_figures(row), ""]
    if row.times:
        lines += ["Times, for information:", "", *_table(["", "median"], [_time(time) for time in row.times]), ""]
    notes = [*row.notes, *([why["notes"][row.name]] if row.name in why["notes"] else [])]
    for note in notes:
        lines += [note, ""]
    for check in row.checks:
        if check.met is False and check.key in why:
            lines += [f"**Why {check.what!r} is missed.** {why[check.key]}", ""]
    for picture in row.pictures:
        lines += [f"![{row.title}: {picture}](pictures/{picture})", ""]
    return lines


def _time(time: Time) -> list[str]:
    return [time.what, number(time.value, time.unit)]
