"""Projects, notebooks, loads, builds, profiles."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE model.archives (
            workspace text NOT NULL,
            sha256 text NOT NULL,
            content bytea NOT NULL,
            declaration jsonb,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, sha256)
        );
        CREATE TABLE model.projects (
            workspace text NOT NULL,
            project text NOT NULL,
            revision integer NOT NULL,
            sha256 text NOT NULL,
            push_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, project, revision),
            FOREIGN KEY (workspace, sha256) REFERENCES model.archives (workspace, sha256)
        );
        CREATE TABLE model.notebooks (
            workspace text NOT NULL,
            notebook text NOT NULL,
            revision integer NOT NULL,
            sha256 text NOT NULL,
            content bytea NOT NULL,
            trait text NOT NULL,
            inputs jsonb NOT NULL,
            push_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, notebook, revision)
        );
        CREATE TABLE model.loads (
            workspace text NOT NULL,
            number integer NOT NULL,
            file_name text NOT NULL,
            sha256 text NOT NULL,
            byte_count bigint NOT NULL,
            state text NOT NULL,
            row_count bigint NOT NULL DEFAULT 0,
            event_count bigint NOT NULL DEFAULT 0,
            duplicate_count bigint NOT NULL DEFAULT 0,
            quarantined_count bigint NOT NULL DEFAULT 0,
            new_user_count bigint NOT NULL DEFAULT 0,
            error text NOT NULL DEFAULT '',
            create_time timestamptz NOT NULL DEFAULT now(),
            end_time timestamptz,
            PRIMARY KEY (workspace, number)
        );
        CREATE TABLE model.builds (
            workspace text NOT NULL,
            number integer NOT NULL,
            model_revision integer NOT NULL,
            as_of timestamptz NOT NULL,
            traits jsonb NOT NULL,
            projects jsonb NOT NULL,
            notebooks jsonb NOT NULL,
            state text NOT NULL,
            snapshot bigint NOT NULL DEFAULT 0,
            row_count bigint NOT NULL DEFAULT 0,
            inserted_count bigint NOT NULL DEFAULT 0,
            updated_count bigint NOT NULL DEFAULT 0,
            deleted_count bigint NOT NULL DEFAULT 0,
            failures jsonb NOT NULL DEFAULT '[]',
            create_time timestamptz NOT NULL DEFAULT now(),
            end_time timestamptz,
            PRIMARY KEY (workspace, number)
        );
        CREATE UNIQUE INDEX one_build_at_a_time ON model.builds (workspace) WHERE state = 'running';
        CREATE INDEX good_builds ON model.builds (workspace, number) WHERE state = 'succeeded';
        CREATE TABLE model.build_steps (
            workspace text NOT NULL,
            build integer NOT NULL,
            step text NOT NULL,
            outcome text NOT NULL DEFAULT '',
            start_time timestamptz NOT NULL DEFAULT now(),
            seconds double precision,
            PRIMARY KEY (workspace, build, step),
            FOREIGN KEY (workspace, build) REFERENCES model.builds (workspace, number)
        );
        CREATE TABLE model.notebook_runs (
            workspace text NOT NULL,
            build integer NOT NULL,
            notebook text NOT NULL,
            revision integer NOT NULL,
            metrics jsonb NOT NULL,
            row_count bigint NOT NULL,
            PRIMARY KEY (workspace, build, notebook),
            FOREIGN KEY (workspace, build) REFERENCES model.builds (workspace, number)
        );
        CREATE TABLE model.profiles (
            workspace text NOT NULL,
            user_id text NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (workspace, user_id)
        );
        CREATE TABLE model.requests (
            workspace text NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            answer bytea,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, request_id)
        );
    """)
