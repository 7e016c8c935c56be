"""``python -m bench``: measures rows, prints them, keeps them as JSON and writes the page."""

import argparse
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import places, report
from bench.rounds import Row
from bench.rows import FULL, QUICK, USUAL, Mode, measuring, names

_KEPT = Path("bench/out/results.json")


class Results(msgspec.Struct):
    """Rows by name, and the machine that they were measured on."""

    machine: dict[str, str]
    rows: dict[str, Row]


def main(arguments: list[str] | None = None) -> int:
    """0; or 1 when a goal was missed and ``--strict`` was given."""
    options = _parser().parse_args(arguments)
    wanted = names() if options.rows is None else [name.strip() for name in options.rows.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        print(f"there is no row {unknown[0]!r}; there are {', '.join(names())}", file=sys.stderr)
        return 2
    mode = QUICK if options.quick else FULL if options.full else USUAL
    warnings.simplefilter("ignore", DeprecationWarning)  # of the peers, among themselves
    results = _kept(options.json)
    for name in wanted:
        print(f"{name} ...", file=sys.stderr, flush=True)
        row = _measured(name, mode)
        results.rows[name] = row
        print(report.plain(row), flush=True)
        _keep(results, options.json)
    if options.write_docs:
        report.PAGE.write_text(report.page(results.rows, results.machine), encoding="utf-8")
        print(f"wrote {report.PAGE}", file=sys.stderr)
    missed = [check for name in wanted for check in results.rows[name].checks if check.met is False]
    return 1 if options.strict and missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="perdure, the raw limit and the peers in one run."
    )
    parser.add_argument("--rows", metavar="P1,P3", help=f"which rows (default: all of {', '.join(names())})")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer rounds, smaller stores")
    size.add_argument("--full", action="store_true", help="more rounds, growth up to a million messages")
    parser.add_argument(
        "--json", type=Path, default=_KEPT, metavar="FILE",
        help=f"where results are kept; rows that are not measured now stay (default: {_KEPT})",
    )  # fmt: skip
    parser.add_argument("--write-docs", action="store_true", help=f"write {report.PAGE} from all kept results")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a measured goal is missed")
    return parser


def _measured(name: str, mode: Mode) -> Row:
    load = places.load()
    row = measuring(name)(mode)
    row.load = load
    row.date = datetime.now(UTC).date().isoformat()
    row.mode = mode.name
    return row


def _kept(path: Path) -> Results:
    """What earlier runs on the same machine and versions left; figures of others are not mixed in."""
    machine = places.machine()
    if path.exists():
        kept = msgspec.json.decode(path.read_bytes(), type=Results)
        if kept.machine == machine:
            return kept
    return Results(machine, {})


def _keep(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results)))


if __name__ == "__main__":
    sys.exit(main())
