"""A workspace's lake for the tests: DuckLake, its catalog in PostgreSQL, with generated events."""

import os
import subprocess
from pathlib import Path
from typing import Any

import duckdb
from duckdb_extensions import import_extension

ROOT = Path(__file__).parents[3]
TUSK = ROOT / "examples" / "tusk"
DBT = Path(os.environ.get("TRAITMESH_DBT", ROOT / ".envs/dbt/bin/dbt"))
EXTENSIONS = ("ducklake", "postgres_scanner", "httpfs")
IMPORT_EXTENSIONS = f"""
from duckdb_extensions import import_extension
for name in {EXTENSIONS}:
    import_extension(name)
"""
PROFILES = """
traitmesh:
  target: lake
  outputs:
    lake:
      type: duckdb
      path: ":memory:"
      database: lake
      schema: dbt
      threads: 2
      attach:
        - path: "{{ env_var('LAKE_PATH') }}"
          alias: lake
          is_ducklake: true
          options: {META_SCHEMA: "{{ env_var('LAKE_SCHEMA') }}"}
"""
CREATE_TABLES = (Path(__file__).parent / "platform_tables.sql").read_text()


class Lake:
    """A lake with the platform's tables, filled from the generator's files, that dbt can build."""

    def __init__(self, postgres: str, schema: str, folder: Path) -> None:
        """Make the lake: catalog in `schema` of the PostgreSQL at libpq string, data in `folder`."""
        self._path, self._schema = f"ducklake:postgres:{postgres}", schema
        self._home = folder / "home"
        self._home.mkdir(parents=True)
        (self._home / "profiles.yml").write_text(PROFILES)
        (folder / "data").mkdir()
        self.connection = duckdb.connect(config={"home_directory": str(self._home)})
        for name in EXTENSIONS:
            import_extension(name, con=self.connection)
        self.connection.execute(
            f"attach '{self._path}' as lake (data_path '{folder / 'data'}', meta_schema '{schema}')"
        )
        self.connection.execute("use lake")
        # dbt's own interpreter may have another DuckDB, so it imports its extensions itself.
        self._run([DBT.with_name("python"), "-c", IMPORT_EXTENSIONS])

    def load(self, files: Path) -> None:
        """Load the event files in the folder `files` in the place of what is there."""
        self.connection.execute("set variable files = ?", [f"{files}/events-*.ndjson.gz"])
        self.connection.execute(CREATE_TABLES)

    def dbt(self, *arguments: str, project: Path = TUSK / "dbt", succeeds: bool = True) -> str:
        """Run dbt and return its output; AssertionError if it does not end as expected."""
        places: list[Path | str] = ["--project-dir", project, "--profiles-dir", self._home]
        places += ["--target-path", self.target, "--log-path", self.target, "--no-use-colors"]
        return self._run([DBT, *arguments, *places], succeeds=succeeds)

    @property
    def target(self) -> Path:
        """Where dbt leaves its manifest and results."""
        return self._home / "target"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self.connection.sql(sql).fetchall()

    def value(self, sql: str) -> Any:
        """Return the only value of a query of one row and column."""
        [[value]] = self.rows(sql)
        return value

    def _run(self, command: list[Path | str], *, succeeds: bool = True) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._home),
            "LAKE_PATH": self._path,
            "LAKE_SCHEMA": self._schema,
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
        return done.stdout
