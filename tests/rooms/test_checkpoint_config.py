"""Settings are checked where they are given, and secrets do not show."""

import base64
import pickle

import pytest

from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.values.errors import Invalid, OverLimit


def test_the_defaults():
    config = CheckpointConfig()
    assert {name: getattr(config, name) for name in config.__struct_fields__} == {
        "auto_checkpoint": True,
        "checkpoint_interval": 5,
        "checkpoint_seconds": 60,
        "max_checkpoints_per_thread": 50,
        "compression": "zstd",
        "encryption_key": None,
        "retention_days": 30,
        "keep_minimum": 10,
        "keep_failed_states": True,
    }


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("auto_checkpoint", 1, Invalid),
        ("checkpoint_interval", 0, Invalid),
        ("checkpoint_interval", 1.5, Invalid),
        ("checkpoint_interval", True, Invalid),
        ("checkpoint_interval", 1_000_001, OverLimit),
        ("checkpoint_seconds", 0, Invalid),
        ("checkpoint_seconds", float("nan"), Invalid),
        ("checkpoint_seconds", True, Invalid),
        ("checkpoint_seconds", 86400 * 366, Invalid),
        ("max_checkpoints_per_thread", 0, Invalid),
        ("max_checkpoints_per_thread", "50", Invalid),
        ("compression", "gzip", Invalid),
        ("compression", None, Invalid),
        ("compression", ["zstd"], Invalid),
        ("encryption_key", "", Invalid),
        ("encryption_key", b"", Invalid),
        ("encryption_key", 7, Invalid),
        ("encryption_key", "\ud800secret", Invalid),
        ("encryption_key", b"secret" * 1000, OverLimit),
        ("encryption_key", "secret" * 1000, OverLimit),
        ("retention_days", -1, Invalid),
        ("retention_days", float("nan"), Invalid),
        ("retention_days", "30", Invalid),
        ("retention_days", True, Invalid),
        ("retention_days", 36_526, OverLimit),
        ("retention_days", float("inf"), OverLimit),
        ("keep_minimum", -1, Invalid),
        ("keep_minimum", None, Invalid),
        ("keep_failed_states", None, Invalid),
    ],
)
def test_what_a_setting_cannot_be_is_refused_by_name(field, value, kind):
    with pytest.raises(Invalid) as caught:
        CheckpointConfig(**{field: value})
    assert type(caught.value) is kind
    assert caught.value.field == field
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("checkpoint_interval", 1), ("checkpoint_seconds", 0.5), ("max_checkpoints_per_thread", None),
        ("compression", "none"),
        ("retention_days", None), ("retention_days", 0), ("retention_days", 0.25), ("keep_minimum", 0),
        ("encryption_key", b"\0" * 32), ("encryption_key", base64.b64encode(b"k" * 32).decode()),
        ("encryption_key", "long words"),
    ],
)  # fmt: skip
def test_what_a_setting_can_be_is_kept(field, value):
    assert getattr(CheckpointConfig(**{field: value}), field) == value


@pytest.mark.parametrize("key", ["very secret words", b"very secret bytes of 32 letters!"])
def test_the_key_does_not_show(key):
    config = CheckpointConfig(encryption_key=key, keep_minimum=3)
    shown = f"{config!r} {config} {[config]}"
    assert "secret" not in shown
    assert "encryption_key='***'" in shown
    assert "keep_minimum=3" in shown
    assert pickle.loads(pickle.dumps(config)) == config


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        CheckpointConfig().keep_minimum = 1
