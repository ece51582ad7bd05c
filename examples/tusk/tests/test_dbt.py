import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from examples.tusk.tests.conftest import MakeLake
from examples.tusk.tests.lake import TUSK, Lake


@pytest.fixture(scope="session")
def manifest(built: Lake) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((built.target / "manifest.json").read_text())
    return loaded


def test_traits_of_all_types_are_declared_described_and_tested(manifest: dict[str, Any]) -> None:
    model = manifest["nodes"]["model.tusk.user_traits"]
    assert model["config"]["meta"]["traitmesh"] == {"entity": "user", "key": "user_id"}
    tested = {
        node["column_name"]
        for node in manifest["nodes"].values()
        if node.get("attached_node") == "model.tusk.user_traits"
    }
    traits = {
        name: column["config"]["meta"]["traitmesh"]["trait"]
        for name, column in model["columns"].items()
        if name != "user_id"
    }
    assert 12 <= len(traits) <= 18
    assert {trait["type"] for trait in traits.values()} == {"boolean", "continuous", "categorical"}
    assert all(model["columns"][name]["description"] for name in traits)
    assert traits.keys() <= tested


def test_declared_traits_are_the_columns_with_fitting_types(built: Lake, manifest: dict[str, Any]) -> None:
    fitting = {"boolean": {"BOOLEAN"}, "continuous": {"DOUBLE", "INTEGER"}, "categorical": {"VARCHAR"}}
    declared = manifest["nodes"]["model.tusk.user_traits"]["columns"]
    described = {row[0]: row[1] for row in built.rows("describe dbt.user_traits")}
    assert list(described) == list(declared)
    for name, column in declared.items():
        if name != "user_id":
            assert described[name] in fitting[column["config"]["meta"]["traitmesh"]["trait"]["type"]]


def test_one_row_per_user_with_traits_that_follow_from_the_events(built: Lake) -> None:
    assert built.value("select count(*) from dbt.user_traits") == 3_000
    assert built.value("select count(distinct user_id) from dbt.user_traits") == 3_000
    wrong = built.rows("""
        with expected as (
            select
                user_id,
                coalesce(sum(se_value) filter (name = 'purchase'), 0) as ltv,
                count(*) filter (name = 'game_end' and time >= '2026-06-01') as games_30d,
                date_diff('day', max(time), timestamp '2026-06-30') as days_since_last_seen,
                max(cast(contexts ->> '$.com_tusk_player_context_1[0].level' as integer)) as level,
                any_value(geo_country) as country
            from traitmesh.events
            group by user_id
        )
        select user_id
        from expected
        full join dbt.user_traits as traits using (user_id)
        where abs(expected.ltv - traits.ltv) > 0.001
            or (expected.ltv > 0) is distinct from traits.is_payer
            or expected.games_30d is distinct from traits.games_30d
            or expected.days_since_last_seen is distinct from traits.days_since_last_seen
            or expected.level is distinct from traits.current_level
            or expected.country is distinct from traits.country
    """)
    assert wrong == []
    assert built.value("select count(*) from dbt.user_traits where is_payer") > 0


def test_windows_tell_who_came_back_and_score_the_last_cutoff(built: Lake) -> None:
    cutoffs = built.rows("""
        select cast(cutoff as varchar), count(*) > 0, count(churned) > 0
        from dbt.user_activity_windows group by cutoff order by cutoff
    """)
    days = ["2026-05-06", "2026-05-20", "2026-06-03", "2026-06-17", "2026-07-01"]
    assert cutoffs == [(day, True, day != days[-1]) for day in days]
    wrong = built.rows("""
        select windows.user_id
        from dbt.user_activity_windows as windows
        where windows.churned is not null and windows.churned = exists (
            select 1 from traitmesh.events
            where events.user_id = windows.user_id
                and events.time >= windows.cutoff
                and events.time < windows.cutoff + interval 14 day
        )
    """)
    assert wrong == []


def test_play_decides_who_leaves(built: Lake) -> None:
    churn = "select avg(cast(churned as integer)) from dbt.user_activity_windows where "
    assert built.value(churn + "active_days_30d >= 4") < built.value(churn + "active_days_30d = 1") - 0.3
    often = churn + "games_30d between 8 and 30 and "
    winners = built.value(often + "games_won_30d > 0.55 * games_30d")
    losers = built.value(often + "games_won_30d < 0.35 * games_30d")
    assert winners < losers - 0.05


def test_overlay_adds_a_trait(built: Lake, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(TUSK / "dbt", project)
    shutil.copytree(TUSK / "next", project, dirs_exist_ok=True)
    built.dbt("build", "--select", "skill_traits", project=project)
    wrong = "select count(*) from dbt.skill_traits where not win_rate_30d between 0 and 1"
    assert built.value(wrong) == 0
    assert built.value("select avg(win_rate_30d) from dbt.skill_traits") == pytest.approx(0.48, abs=0.08)


def test_as_of_computes_the_past(make_lake: MakeLake, few_events: Path) -> None:
    lake = make_lake("past", few_events)
    lake.dbt("run", "--vars", '{"as_of": "2026-05-31 12:00:00"}')
    seen = "select count(distinct user_id) from traitmesh.events where time <= '2026-05-31 12:00:00'"
    assert lake.value("select count(*) from dbt.user_traits") == lake.value(seen) < 300
    assert lake.value("select cast(max(cutoff) as varchar) from dbt.user_activity_windows") == "2026-06-01"


def test_strange_events_stop_no_build_but_a_broken_contract_is_found(make_lake: MakeLake, few_events: Path) -> None:
    lake = make_lake("strange", few_events)
    lake.connection.execute("""
        insert into traitmesh.events
        select * replace (
            'purchase' as name, -1000 as se_value, 'Mars/Base' as os_timezone, null as geo_country,
            '{"com_tusk_player_context_1": [{"level": "ten"}], "other": 1}' as contexts
        )
        from traitmesh.events where time < '2026-05-01' limit 1
    """)
    output = lake.dbt("build", succeeds=False)
    assert "ERROR=1 " in output
    assert re.findall(r"FAIL 1 (\w+) \.", output) == ["in_range_user_traits_ltv__0"]
