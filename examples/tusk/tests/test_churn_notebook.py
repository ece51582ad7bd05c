import json
import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from examples.tusk.tests.lake import ROOT, TUSK, Lake

NOTEBOOK = TUSK / "notebooks" / "churn.ipynb"
PYTHON = Path(os.environ.get("TRAITMESH_NOTEBOOK_PYTHON", ROOT / ".envs/notebook/bin/python"))


@pytest.fixture(scope="session")
def run_folder(built: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a managed run of the notebook."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "inputs").mkdir()
    table = built.connection.sql("select * from dbt.user_activity_windows")
    table.write_parquet(str(folder / "inputs" / "dbt.user_activity_windows.parquet"))
    done = subprocess.run(
        [PYTHON, "-m", "papermill", NOTEBOOK, folder / "output.ipynb", "--no-progress-bar"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TRAITMESH_RUN_DIR": str(folder),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_notebook_is_stored_without_outputs_and_declares_its_trait() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    declared = notebook["metadata"]["traitmesh"]
    assert declared["inputs"] == ["dbt.user_activity_windows"]
    assert declared["trait"].keys() == {"id", "type", "display_name", "description"}
    assert (declared["trait"]["id"], declared["trait"]["type"]) == ("churn_probability", "continuous")


def test_churn_is_predicted_for_the_last_cutoff(run_folder: Path, built: Lake) -> None:
    published = pq.read_table(run_folder / "outputs" / "churn_probability.parquet")
    assert published.column_names == ["user_id", "value"]
    to_score = built.rows("select user_id from dbt.user_activity_windows where churned is null")
    assert sorted(published["user_id"].to_pylist()) == sorted(user for (user,) in to_score)
    values = published["value"].to_pylist()
    assert all(0 < value < 1 for value in values)
    assert max(values) - min(values) > 0.5


def test_model_is_better_than_the_base_rate(run_folder: Path) -> None:
    metrics = json.loads((run_folder / "outputs" / "metrics.json").read_text())
    assert 0.75 < metrics["auc"] < 0.95
    assert metrics["log_loss"] < 0.85 * metrics["base_log_loss"]
    assert metrics["calibration_error"] < 0.1
    assert metrics["n_train"] > metrics["n_valid"] > 100
