"""Retention takes the old and the many, never what someone leans on, and says why."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.rooms.checkpoints.retention import Candidate, Verdict, choose

DAY = 86_400_000_000
NOW = 1_000 * DAY

laws = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@st.composite
def threads(draw):
    """Checkpoints newest first; their times need not follow, and some lie ahead of the clock."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(-5, 60), st.sampled_from(["ok", "ok", "failed", "completed"]),
                *[st.sampled_from([False, False, False, True])] * 3,
            ),
            max_size=25,
        )
    )  # fmt: skip
    return [Candidate(f"c{n}", NOW - days * DAY, *rest) for n, (days, *rest) in enumerate(rows)]


policies = st.builds(
    CheckpointConfig,
    max_checkpoints_per_thread=st.none() | st.integers(1, 20),
    retention_days=st.none() | st.sampled_from([0, 0.5, 1, 30, 100]),
    keep_minimum=st.integers(0, 10),
    keep_failed_states=st.booleans(),
)


def verdicts(candidates, **policy):
    return [(v.keep, v.reason) for v in choose(candidates, CheckpointConfig(**policy), NOW)]


def plain(count, age_days=0.0):
    return [Candidate(f"c{n}", NOW - round(age_days * DAY), "ok", False, False, False) for n in range(count)]


@laws
@given(threads(), policies)
def test_each_checkpoint_gets_one_verdict_in_order(candidates, policy):
    found = choose(candidates, policy, NOW)
    assert [verdict.id for verdict in found] == [candidate.id for candidate in candidates]
    assert all(verdict.keep == (verdict.reason not in {"too_old", "too_many"}) for verdict in found)


@laws
@given(threads(), policies)
def test_heads_fork_points_tagged_and_failed_ones_stay(candidates, policy):
    for candidate, verdict in zip(candidates, choose(candidates, policy, NOW), strict=True):
        failed = policy.keep_failed_states and candidate.status == "failed"
        reasons = {
            "head": candidate.is_head, "fork_point": candidate.is_fork_point, "tagged": candidate.tags,
            "failed": failed,
        }  # fmt: skip
        if any(reasons.values()):
            assert verdict == Verdict(candidate.id, True, next(name for name, true in reasons.items() if true))
        else:
            assert verdict.reason not in reasons


@laws
@given(threads(), policies)
def test_the_newest_by_position_stay(candidates, policy):
    assert all(verdict.keep for verdict in choose(candidates, policy, NOW)[: policy.keep_minimum])


@laws
@given(threads(), policies)
def test_what_goes_by_age_is_too_old_and_what_stays_within_limits_is_not(candidates, policy):
    for candidate, verdict in zip(candidates, choose(candidates, policy, NOW), strict=True):
        old = policy.retention_days is not None and NOW - candidate.created_at > policy.retention_days * DAY
        if verdict.reason == "too_old":
            assert old
        elif verdict.reason in {"within_limits", "too_many"}:
            assert not old


@laws
@given(threads(), policies)
def test_the_maximum_is_used_and_exceeded_only_by_what_must_stay(candidates, policy):
    found = choose(candidates, policy, NOW)
    why = Counter(verdict.reason for verdict in found)
    kept = sum(verdict.keep for verdict in found)
    most = policy.max_checkpoints_per_thread
    if most is not None and why["within_limits"]:
        assert kept <= most
    if why["too_many"]:
        assert kept >= most
        last = max(n for n, v in enumerate(found) if v.reason == "too_many")
        first = min(n for n, v in enumerate(found) if v.reason == "too_many")
        assert all(v.reason != "within_limits" for v in found[first : last + 1])


@laws
@given(threads(), policies)
def test_what_retention_left_it_leaves_again(candidates, policy):
    kept = {verdict.id for verdict in choose(candidates, policy, NOW) if verdict.keep}
    again = choose([candidate for candidate in candidates if candidate.id in kept], policy, NOW)
    assert {verdict.id for verdict in again if verdict.keep} == kept


def test_the_defaults_keep_fifty_of_the_last_thirty_days():
    assert Counter(verdicts(plain(60))) == {(True, "minimum"): 10, (True, "within_limits"): 40, (False, "too_many"): 10}
    assert Counter(verdicts(plain(60, 31))) == {(True, "minimum"): 10, (False, "too_old"): 50}
    assert Counter(verdicts(plain(20, 30))) == {(True, "minimum"): 10, (True, "within_limits"): 10}


def test_protected_ones_count_towards_the_maximum():
    tagged = [Candidate("t", NOW, "ok", True, False, False)]
    found = verdicts([*plain(4), *tagged], max_checkpoints_per_thread=3, keep_minimum=1)
    assert [keep for keep, _ in found] == [True, True, False, False, True]


def test_the_minimum_goes_before_the_maximum():
    found = verdicts(plain(6), max_checkpoints_per_thread=2, keep_minimum=4)
    assert found == [(True, "minimum")] * 4 + [(False, "too_many")] * 2


def test_newer_is_told_by_position_not_by_the_clock():
    ages = [9, 1, 8, 2]
    candidates = [Candidate(f"c{n}", NOW - age * DAY, "ok", False, False, False) for n, age in enumerate(ages)]
    found = verdicts(candidates, max_checkpoints_per_thread=2, keep_minimum=1)
    assert [keep for keep, _ in found] == [True, True, False, False]


def test_without_limits_everything_stays():
    found = verdicts(plain(300, 1e4), max_checkpoints_per_thread=None, retention_days=None, keep_minimum=0)
    assert set(found) == {(True, "within_limits")}
