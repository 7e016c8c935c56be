"""Flipped bits and misplaced pages: what would change an answer is found before it is returned.

Pages in another's place, pages of another store and pages that were not rewritten are sound in themselves.

``PERDURE_FLIPS`` and ``PERDURE_MOVED_PAGES`` set the numbers of the full run (10,000 and 3,000 unless given). Each case
runs in a process that it may bring down, on a copy of one of two images: ``closed``, a file closed in good order, and
``killed``, a file with the log that a killed process left behind.
"""

import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Tell
from examiner import Rows, index_faults
from zygote import Zygote

import perdure
import perdure.sync
from perdure.drivers.sqlite import connection, log

FLIPS, FLIPS_FULL = 300, int(os.environ.get("PERDURE_FLIPS", "10000"))
MOVES, MOVES_FULL = 132, int(os.environ.get("PERDURE_MOVED_PAGES", "3000"))
PAGE = 4096
FRAME = 24 + PAGE
LOG_HEADER = 32
LONG_BODY = "lightship"
Case = dict[str, Any]


@dataclass
class Verdict:
    """What became of the damage, case by case."""

    counts: Counter[str] = field(default_factory=Counter)
    silent: list[tuple[Case, list[str]]] = field(default_factory=list)
    unknown: list[tuple[Case, list[str]]] = field(default_factory=list)
    """Silent cases of which doctor knows nothing either, but for those in the long bodies of messages."""
    untyped: list[str] = field(default_factory=list)


class Laboratory:
    """The images, what they answer when sound, and processes to try damage on copies of them."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self.folder = folder
        self._zygote = zygote
        self._truth: dict[str, dict[str, str]] = {}
        self._runs = 0
        for image in ("closed", "killed", "another"):
            (folder / image).mkdir(parents=True)
            assert zygote.wait(zygote.start(build_in=str(folder / image), leave_log=image == "killed")) == 0
            (answers,) = self._try(image, [{"kind": "none", "file": "store.db"}])[0]
            self._truth[image] = answers["answers"]
            assert not [text for text in self._truth[image].values() if text.startswith("!")]
            assert self._truth[image]["doctor"] == "[]"

    def size(self, image: str, name: str) -> int:
        """Bytes of one of an image's files."""
        return (self.folder / image / name).stat().st_size

    def changed_pages(self, source: Path) -> list[int]:
        """Pages that the closed image and another file have both, but not alike."""
        ours, theirs = (self.folder / "closed" / "store.db").read_bytes(), source.read_bytes()
        starts = range(0, min(len(ours), len(theirs)), PAGE)
        return [at // PAGE for at in starts if ours[at : at + PAGE] != theirs[at : at + PAGE]]

    def _try(self, image: str, cases: list[Case]) -> tuple[list[dict[str, Any]], int]:
        """What the copies answered, and how many processes went down or hung."""
        self._runs += 1
        out = self.folder / f"answers{self._runs}"
        halves = [half for half in (cases[::2], cases[1::2]) if half]
        workers = [
            self._zygote.start(
                image=str(self.folder / image), scratch=f"{out}-{number}", out=f"{out}.{number}", cases=half
            )
            for number, half in enumerate(halves)
        ]
        down = sum(self._zygote.wait(worker) != 0 for worker in workers)
        files = [Path(f"{out}.{number}") for number in range(len(halves))]
        return [json.loads(line) for file in files for line in file.read_text().splitlines()], down

    def examine(self, image: str, cases: list[Case]) -> Verdict:
        """How each case of damage ended: harmless, found, or silent: a wrong answer given as if it were right."""
        verdict = Verdict(Counter(cases=len(cases), found=0, harmless=0, silent=0))
        truth = self._truth[image]
        results, down = self._try(image, cases)
        verdict.counts["crashed"] = down
        assert down or len(results) == len(cases)
        for result in results:
            changed = {name: text for name, text in result["answers"].items() if text != truth.get(name)}
            wrong = sorted(name for name, text in changed.items() if not text.startswith("!") and name != "doctor")
            verdict.untyped += [f"{result['case']}: {text}" for text in changed.values() if text.startswith("!!")]
            verdict.counts["silent" if wrong else "found" if changed else "harmless"] += 1
            if wrong:
                verdict.silent.append((result["case"], wrong))
                in_bodies = all(LONG_BODY in truth[name] for name in wrong)
                if "doctor" not in changed:
                    verdict.counts["of_these_unknown_to_doctor"] += 1
                    if not in_bodies:
                        verdict.unknown.append((result["case"], wrong))
        return verdict


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    if connection.checksum_vfs() is None:
        pytest.skip("apsw brings no checksum VFS for this platform")
    with Zygote("damage_worker") as zygote:
        yield Laboratory(zygote, tmp_path_factory.mktemp("damage"))


def flips(laboratory: Laboratory, image: str, name: str, number: int, rng: random.Random) -> list[Case]:
    """Cases of one flipped bit each."""
    bits = laboratory.size(image, name) * 8
    return [{"kind": "flip", "file": name, "at": rng.randrange(bits)} for _ in range(number)]


def flip_everywhere(laboratory: Laboratory, number: int, rng: random.Random, tell: Tell, name: str) -> None:
    """Flips over the file, over the log, its index, and the file beneath a log; none may be silent."""
    total: Counter[str] = Counter()
    for image, file, share in (
        ("closed", "store.db", 0.5), ("killed", "store.db-wal", 0.3), ("killed", "store.db", 0.1),
        ("killed", "store.db-shm", 0.1),
    ):  # fmt: skip
        verdict = laboratory.examine(image, flips(laboratory, image, file, round(number * share), rng))
        assert verdict.silent == []
        assert verdict.untyped == []
        total.update(verdict.counts)
    tell(name, **total)
    assert total["silent"] == total["crashed"] == 0
    assert total["found"] > total["cases"] // 3


def test_flipped_bits(laboratory, seeded_random, tell):
    flip_everywhere(laboratory, FLIPS, seeded_random, tell, "flips")


@pytest.mark.full
@pytest.mark.timeout(0)
def test_flipped_bits_full(laboratory, seeded_random, tell):
    flip_everywhere(laboratory, FLIPS_FULL, seeded_random, tell, "flips_full")


def test_every_bit_of_the_first_header(laboratory, tell):
    """The 100 bytes that say what the rest means, the switch for checksums among them."""
    cases = [{"kind": "flip", "file": "store.db", "at": bit} for bit in range(800)]
    verdict = laboratory.examine("closed", cases)
    tell("flips_in_header", **verdict.counts)
    assert verdict.counts["found"] == 800
    assert verdict.untyped == []


def moved(pages: int, kind: str, file: str, number: int, rng: random.Random, **shape: int) -> list[Case]:
    """Cases of pages set to zero, written over another, or swapped with another."""
    cases: list[Case] = []
    for _ in range(number):
        page, other = rng.sample(range(pages), 2)
        cases.append({"kind": kind, "file": file, "page": page, "other": other, **shape})
    return cases


def move_everywhere(laboratory: Laboratory, number: int, rng: random.Random, tell: Tell, name: str) -> None:
    """Pages in the wrong place, in the file and in the log."""
    pages = laboratory.size("closed", "store.db") // PAGE
    frames = (laboratory.size("killed", "store.db-wal") - LOG_HEADER) // FRAME
    for kind in ("zero", "double", "swap"):
        in_file = moved(pages, kind, "store.db", number // 4, rng)
        in_log = moved(frames, kind, "store.db-wal", number // 12, rng, size=FRAME, header=LOG_HEADER)
        of_file, of_log = laboratory.examine("closed", in_file), laboratory.examine("killed", in_log)
        tell(f"{name}_{kind}", **of_file.counts)
        tell(f"{name}_{kind}_in_log", **of_log.counts)
        for verdict in (of_file, of_log):
            assert verdict.counts["crashed"] == 0
            assert verdict.untyped == []
        assert of_file.silent == []
        assert len(of_log.silent) <= len(in_log) // 50  # only the last frame may go without a trace
        assert of_file.counts["harmless"] <= len(in_file) // 50  # pages that nothing reads, and those of equal bytes


def test_misplaced_pages(laboratory, seeded_random, tell):
    move_everywhere(laboratory, MOVES, seeded_random, tell, "pages")


@pytest.mark.full
@pytest.mark.timeout(0)
def test_misplaced_pages_full(laboratory, seeded_random, tell):
    move_everywhere(laboratory, MOVES_FULL, seeded_random, tell, "pages_full")


def replace_pages(laboratory: Laboratory, source: Path, pages: list[int]) -> Verdict:
    """Pages of the closed image, each replaced by the page that another file has in the same place."""
    cases = [{"kind": "from", "file": "store.db", "page": page, "source": str(source)} for page in pages]
    verdict = laboratory.examine("closed", cases)
    assert verdict.counts["crashed"] == 0
    assert verdict.untyped == []
    return verdict


def test_pages_of_another_store(laboratory, seeded_random, tell):
    """The same page of a store with the same content: a disk that mixed up two files."""
    source = laboratory.folder / "another" / "store.db"
    pages = laboratory.changed_pages(source)
    assert len(pages) > 100
    verdict = replace_pages(laboratory, source, seeded_random.sample(pages, 40))
    tell("pages_of_another_store", **verdict.counts)
    assert verdict.counts["found"] == 40


def test_pages_that_were_not_rewritten(laboratory, tell):
    """The same page as it was earlier: a disk that acknowledged a write and did not do it.

    Nothing in such a page tells. Some are found by the pages around them, and most of the others by doctor.
    """
    source = laboratory.folder / "closed-older.db"
    pages = laboratory.changed_pages(source)
    verdict = replace_pages(laboratory, source, pages)
    tell("pages_not_rewritten", **verdict.counts)
    assert verdict.counts["found"] >= len(pages) // 8
    assert len(verdict.unknown) <= len(pages) // 8


def test_a_damaged_log_is_refused_each_time_and_left_as_it_is(laboratory, tmp_path):
    """Opening it twice does not turn damage into a loss that nobody is told of."""
    names = ("store.db", "store.db-wal")
    for name in names:
        (tmp_path / name).write_bytes((laboratory.folder / "killed" / name).read_bytes())
    damaged = bytearray((tmp_path / names[1]).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / names[1]).write_bytes(damaged)
    before = [(tmp_path / name).read_bytes() for name in names]
    for _ in range(3):
        with pytest.raises(perdure.ChecksumMismatch, match="write-ahead log"):
            perdure.sync.Store(f"sqlite:///{tmp_path}/store.db").initialize()
        assert [(tmp_path / name).read_bytes() for name in names] == before


def test_a_log_torn_by_the_machines_end_is_taken_up_to_there(laboratory, tmp_path, caplog):
    """Of a log from before the last start of the machine frames may be missing: it opens, and it is logged."""
    for name in ("store.db", "store.db-wal"):
        (tmp_path / name).write_bytes((laboratory.folder / "killed" / name).read_bytes())
    file = tmp_path / "store.db-wal"
    torn = bytearray(file.read_bytes())
    torn[LOG_HEADER + 100 * FRAME : LOG_HEADER + 101 * FRAME] = bytes(FRAME)
    file.write_bytes(torn)
    os.utime(file, (0, 0))
    assert log.outlived_the_machine(str(tmp_path / "store.db"))
    for _ in range(2):  # the second time nothing is left to tell of
        with perdure.sync.Store(f"sqlite:///{tmp_path}/store.db") as store:
            assert store.doctor()["problems"] == []
            assert store.get_conversation("c0") is not None
    assert sum("cannot be read" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "delete from text_postings where term in (select term from text_postings limit 20)",
        "delete from text_documents where doc % 3 = 0",
        "update text_documents set terms = ' wrong:1 ', length = 1 where doc % 5 = 0",
        "update text_terms set documents = documents + 7",
        "delete from text_totals",
        "update text_progress set position = 1000000",
        "insert into text_postings select tenant, 'ghost', scope, doc from text_documents limit 10",
    ],
)
def test_a_damaged_index_is_rebuilt(tmp_path, damage):
    """``doctor(repair=True)`` makes the text index anew from the messages."""
    with perdure.sync.Store(f"sqlite:///{tmp_path}/store.db") as store:
        store.create_conversation("agent", "ann", id="c")
        store.add_messages("c", [{"role": "user", "content": f"tide {number} and harbour"} for number in range(60)])
        before = [hit.message.id for hit in store.search_messages("harbour tide", limit=60)]
        store.execute(damage)
        store.add_message("c", "user", "a gale warning")
        assert index_faults(store, Rows(store)) != []
        store.doctor(repair=True)
        assert index_faults(store, Rows(store)) == []
        assert [hit.message.id for hit in store.search_messages("harbour tide", limit=60)] == before
