import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from traitmesh.notebook import (
    NotebookError,
    NotInRun,
    log_metric,
    publish_trait,
    read_model,
    read_table,
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a managed run with a model of two users and one table."""
    monkeypatch.setenv("TRAITMESH_RUN_DIR", str(tmp_path))
    (tmp_path / "inputs").mkdir()
    model = pa.table({"user_id": ["a", "b"], "ltv": [1.5, 0.0], "country": ["KH", "VN"]})
    pq.write_table(model, tmp_path / "inputs" / "model.parquet")
    pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "inputs" / "dbt.windows.parquet")
    return tmp_path


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outside a managed run, where nothing tells of a gateway."""
    for name in ("TRAITMESH_RUN_DIR", "TRAITMESH_URL", "TRAITMESH_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRAITMESH_HOME", str(tmp_path))
    monkeypatch.setattr("traitmesh.settings.FILES", ())


def published(run: Path, trait_id: str) -> pa.Table:
    return pq.read_table(run / "outputs" / f"{trait_id}.parquet")


def test_model_is_read_whole_or_by_column(run: Path) -> None:
    assert list(read_model().columns) == ["user_id", "ltv", "country"]
    some = read_model(["country"])
    assert some.to_dict("list") == {"user_id": ["a", "b"], "country": ["KH", "VN"]}
    assert list(read_model(["user_id", "ltv"]).columns) == ["user_id", "ltv"]


def test_unknown_trait_is_named_beside_the_known(run: Path) -> None:
    with pytest.raises(NotebookError, match=r"has no level\. It has: user_id, ltv, country"):
        read_model(["ltv", "level"])


def test_model_that_is_not_there_yet_is_said(run: Path) -> None:
    (run / "inputs" / "model.parquet").unlink()
    with pytest.raises(NotebookError, match="no user model yet"):
        read_model()


def test_table_is_read_if_it_is_an_input(run: Path) -> None:
    assert read_table("dbt.windows")["x"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["dbt.other", "model", "../inputs/dbt.windows", "dbt.windows/x"])
def test_table_that_is_no_input_is_refused(run: Path, name: str) -> None:
    with pytest.raises(NotebookError, match=r"is not an input .* Inputs: dbt\.windows\."):
        read_table(name)


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([0.25, 0.5], pa.float64()),
        ([1, 2], pa.float64()),
        (pd.array([1, 2], dtype="Int64"), pa.float64()),
        ([True, False], pa.bool_()),
        (pd.array([True, False], dtype="boolean"), pa.bool_()),
        (["low", "high"], pa.string()),
        (pd.Categorical(["low", "high"]), pa.string()),
        (pd.Series(["low", "high"], dtype="object"), pa.string()),
    ],
)
def test_values_of_each_trait_type_are_published(run: Path, values: object, type_: object) -> None:
    publish_trait("risk", pd.DataFrame({"user_id": ["a", "b"], "risk": values}))
    table = published(run, "risk")
    assert table.schema == pa.schema([("user_id", pa.string()), ("value", type_)])
    assert table["value"].to_pylist() == list(values)  # type: ignore[call-overload]


def test_value_column_is_the_traits_or_the_only_other_or_the_named(run: Path) -> None:
    users = {"who": ["a", "b"]}
    publish_trait("one", pd.DataFrame({**users, "one": [1, 2], "two": [3, 4]}), key="who")
    publish_trait("other", pd.DataFrame({**users, "two": [3, 4]}), key="who")
    named = pd.DataFrame({**users, "one": [1, 2], "named": [5, 6]})
    publish_trait("named_by_hand", named, key="who", value="named")
    values = [published(run, t)["value"].to_pylist() for t in ("one", "other", "named_by_hand")]
    assert values == [[1, 2], [3, 4], [5, 6]]


USERS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": ["a", "b", "a"], "v": [1, 2, 3]}, "1 of 3 values in 'user_id' repeat a user"),
        ({"user_id": ["a", None, None], "v": [1, 2, 3]}, "2 of 3 values in 'user_id' are missing"),
        ({"user_id": [1, 2, 3], "v": [1, 2, 3]}, "'user_id' holds int64; user ids are text"),
        ({"user_id": USERS, "v": [1.0, None, None]}, "2 of 3 values in 'v' are missing"),
        ({"user_id": USERS, "v": ["x", None, "y"]}, "1 of 3 values in 'v' are missing"),
        ({"user_id": USERS, "v": [1.0, float("inf"), 2.0]}, "1 of 3 values in 'v' are infinite"),
        ({"user_id": USERS, "v": pd.to_datetime(["2026-01-01"] * 3)}, "'v' holds datetime64"),
        ({"user_id": USERS, "v": [[1], [2], [3]]}, "'v' holds object"),
        ({"user_id": USERS, "v": [1, 2, 3], "w": [1, 2, 3]}, "Which column holds the values of t"),
        ({"user": USERS, "v": [1, 2, 3]}, "no column named 'user_id'. It has: user, v"),
        ({"user_id": [], "v": []}, "The frame for t has no rows"),
    ],
)
def test_wrong_frame_is_refused_with_counts(run: Path, columns: Mapping[str, list[object]], message: str) -> None:
    with pytest.raises(NotebookError) as caught:
        publish_trait("t", pd.DataFrame(columns), **({} if "user_id" in columns else {"value": "v"}))
    assert message in str(caught.value)
    assert not (run / "outputs").exists()


@pytest.mark.parametrize("trait_id", ["", "Risk", "../risk", "1st", "a" * 64])
def test_bad_trait_id_is_refused(run: Path, trait_id: str) -> None:
    with pytest.raises(NotebookError, match="is not a trait id"):
        publish_trait(trait_id, pd.DataFrame({"user_id": ["a"], "value": [1]}))


def test_metrics_add_up_and_the_last_value_counts(run: Path) -> None:
    log_metric("auc", 0.5)
    log_metric("n_train", 10)
    log_metric("auc", 0.8)
    written = json.loads((run / "outputs" / "metrics.json").read_text())
    assert written == {"auc": 0.8, "n_train": 10}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high", None])
def test_metric_that_is_no_finite_number_is_refused(run: Path, value: float) -> None:
    with pytest.raises(NotebookError, match="The metric auc is"):
        log_metric("auc", value)
    assert not (run / "outputs").exists()


@pytest.mark.usefixtures("by_hand")
def test_reading_by_hand_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotInRun, match="set TRAITMESH_URL and TRAITMESH_API_KEY"):
        read_model()
    with pytest.raises(NotInRun, match="traitmesh notebook push"):
        read_table("dbt.windows")
    monkeypatch.setenv("TRAITMESH_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("TRAITMESH_API_KEY", "tm_key")
    with pytest.raises(NotebookError, match="does not answer"):
        read_model()


@pytest.mark.usefixtures("by_hand")
def test_publishing_by_hand_checks_and_says_it_does_not_publish(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    publish_trait("risk", pd.DataFrame({"user_id": ["a"], "risk": [0.5]}))
    log_metric("auc", 0.75)
    said = capsys.readouterr().out
    assert "risk: 1 values are fine, and not published. Push the notebook" in said
    assert "auc = 0.75 (recorded when a build runs the notebook)" in said
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotebookError, match="repeat a user"):
        publish_trait("risk", pd.DataFrame({"user_id": ["a", "a"], "risk": [0.5, 0.5]}))
