"""Engines with known holes are refused or warned about when a store is opened."""

import apsw
import pytest

import perdure
import perdure.sync
from perdure.drivers.postgres import versions as async_versions
from perdure.drivers.postgres import versions_blocking
from perdure.drivers.sqlite import connection

SAFE_POSTGRES = [180_006, 170_011, 160_015, 150_019, 140_024, 190_000, 190_001, 200_000, 180_010]
OLD_POSTGRES = [180_005, 180_000, 170_010, 160_014, 150_018, 140_023, 130_099, 120_000, 90_600]
SAFE_SQLITE = ["3.51.3", "3.51.10", "3.52.0", "3.53.2", "3.54.1", "4.0.0"]
OLD_SQLITE = ["3.51.2", "3.51.0", "3.50.99", "3.40.1", "3.9.0", "2.8.17"]


@pytest.mark.parametrize("describe", [async_versions.describe, versions_blocking.describe], ids=["async", "blocking"])
def test_old_postgres_is_warned_about(describe, tell):
    assert [describe(number, unbound=False) for number in SAFE_POSTGRES] == [[]] * len(SAFE_POSTGRES)
    for number in OLD_POSTGRES:
        (warning,) = describe(number, unbound=False)
        major, minor = divmod(number, 10_000)
        assert f"PostgreSQL {major}.{minor} " in warning
        assert "18.6" in warning
    tell("versions_postgres", old_found=len(OLD_POSTGRES), safe_let_through=len(SAFE_POSTGRES))


@pytest.mark.parametrize("describe", [async_versions.describe, versions_blocking.describe], ids=["async", "blocking"])
def test_a_role_that_row_level_security_does_not_bind_is_warned_about(describe):
    (warning,) = describe(180_006, unbound=True)
    assert "BYPASSRLS" in warning
    assert len(describe(180_005, unbound=True)) == 2


def test_a_superuser_is_warned_about_when_a_store_opens(postgres_server, empty_postgres_url):
    with (
        pytest.warns(RuntimeWarning, match="superuser"),
        perdure.sync.open(postgres_server.admin_url(empty_postgres_url)) as store,
    ):
        assert any("superuser" in problem for problem in store.doctor()["problems"])


def test_old_sqlite_is_refused(monkeypatch, tmp_path, tell):
    """Nothing is opened, nothing is written."""
    for version in OLD_SQLITE:
        monkeypatch.setattr(apsw, "sqlite_lib_version", lambda version=version: version)
        with pytest.raises(perdure.Damaged, match=version):
            connection.check_engine()
        with pytest.raises(perdure.Damaged, match=version):
            perdure.sync.SQLiteStore(tmp_path / "store.db").initialize()
    assert list(tmp_path.iterdir()) == []
    for version in SAFE_SQLITE:
        monkeypatch.setattr(apsw, "sqlite_lib_version", lambda version=version: version)
        connection.check_engine()
    tell("versions_sqlite", old_refused=len(OLD_SQLITE), safe_let_through=len(SAFE_SQLITE))


def test_the_sqlite_that_is_used_is_safe_for_files_from_strangers():
    """The lock pins an apsw whose SQLite has no known hole at all: 3.53.2 or later."""
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 53, 2)
