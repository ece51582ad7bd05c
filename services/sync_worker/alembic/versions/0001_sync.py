"""Destinations, syncs, and the ledger of their runs."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE sync.destinations (
            workspace text NOT NULL,
            destination text NOT NULL,
            display_name text NOT NULL,
            connector text NOT NULL,
            sealed_config bytea NOT NULL,
            shown_config jsonb NOT NULL,
            revision integer NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, destination)
        );
        CREATE TABLE sync.syncs (
            workspace text NOT NULL,
            sync text NOT NULL,
            display_name text NOT NULL,
            audience text NOT NULL,
            destination text NOT NULL,
            object text NOT NULL,
            mode text NOT NULL,
            mappings jsonb NOT NULL,
            state_run integer,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, sync),
            FOREIGN KEY (workspace, destination) REFERENCES sync.destinations (workspace, destination)
        );
        CREATE TABLE sync.runs (
            workspace text NOT NULL,
            sync text NOT NULL,
            number integer NOT NULL,
            state text NOT NULL,
            retry_rejects boolean NOT NULL,
            build text NOT NULL DEFAULT '',
            snapshot bigint,
            batch_size integer,
            added_count bigint NOT NULL DEFAULT 0,
            changed_count bigint NOT NULL DEFAULT 0,
            deleted_count bigint NOT NULL DEFAULT 0,
            attention text NOT NULL DEFAULT '',
            epoch integer NOT NULL DEFAULT 0,
            create_time timestamptz NOT NULL DEFAULT now(),
            end_time timestamptz,
            PRIMARY KEY (workspace, sync, number),
            FOREIGN KEY (workspace, sync) REFERENCES sync.syncs (workspace, sync)
        );
        CREATE UNIQUE INDEX one_unfinished_run ON sync.runs (workspace, sync)
            WHERE state NOT IN ('succeeded', 'aborted');
        CREATE INDEX runs_by_age ON sync.runs (workspace, create_time);
        CREATE TABLE sync.batches (
            workspace text NOT NULL,
            sync text NOT NULL,
            run integer NOT NULL,
            number integer NOT NULL,
            first_ordinal bigint NOT NULL,
            record_count integer NOT NULL,
            state text NOT NULL,
            attempts integer NOT NULL DEFAULT 0,
            unnamed_rejects integer NOT NULL DEFAULT 0,
            sent_time timestamptz,
            confirm_time timestamptz,
            PRIMARY KEY (workspace, sync, run, number),
            FOREIGN KEY (workspace, sync, run) REFERENCES sync.runs (workspace, sync, number)
        );
        CREATE TABLE sync.rejects (
            workspace text NOT NULL,
            sync text NOT NULL,
            run integer NOT NULL,
            ordinal bigint NOT NULL,
            batch integer NOT NULL,
            key text NOT NULL,
            operation text NOT NULL,
            code text NOT NULL,
            message text NOT NULL,
            destination_revision integer NOT NULL,
            PRIMARY KEY (workspace, sync, run, ordinal),
            FOREIGN KEY (workspace, sync, run, batch) REFERENCES sync.batches (workspace, sync, run, number)
        );
        CREATE TABLE sync.requests (
            workspace text NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            answer bytea,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, request_id)
        );
    """)
