"""A store from before tenants' chores: each tenant that it holds is planned for when it is brought up to date."""

import pytest

import perdure.sync
from perdure.grammar import Scope
from perdure.schema import plan
from perdure.services.handle import TENANT_CHORES

_BEFORE = 3
_NAMES = ["default", "a/b", "z", "é"]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
@pytest.mark.parametrize("tenants", [_NAMES, []], ids=["some", "none"])
def test_tenants_of_an_older_store_are_planned_for(engine, tenants, tmp_path, request, monkeypatch):
    """Row-level security is as forced after the step as it was before it."""
    url = request.getfixturevalue("empty_postgres_url") if engine == "postgres" else f"sqlite:///{tmp_path / 'old.db'}"
    known = plan.steps
    with monkeypatch.context() as patch:
        patch.setattr(plan, "steps", lambda dialect: known(dialect)[:_BEFORE])
        with perdure.sync.open(url) as store:
            for tenant in tenants:
                for position in (1, 2):
                    # fmt: off
                    store._shared.driver.execute(
                        "insert into changes (tenant, position, kind, verb, object, at) "
                        f"values ('{tenant}', {position}, 'message', 'add', 'm', 0)", None, Scope(tenant),
                    )
                    # fmt: on
    with perdure.sync.open(url) as store:
        names = sorted(f"{tenant}/{name}" for tenant in tenants for name in TENANT_CHORES)
        assert sorted(name for (name,) in store.execute("select name from chores")) == names
        assert store.verify() == []
        assert set(store.run_chores()) >= {name.removeprefix("default/") for name in names}
        assert store.stats()["overdue_chores"] == 0
        if engine == "postgres":
            assert store.execute("select count(*) from changes where tenant <> 'default'") == [(0,)]
