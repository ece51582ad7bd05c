"""Audiences."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE audience.audiences (
            workspace text NOT NULL,
            audience text NOT NULL,
            display_name text NOT NULL,
            description text NOT NULL,
            rule jsonb NOT NULL,
            model_revision text NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, audience)
        );
        CREATE TABLE audience.requests (
            workspace text NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            answer bytea,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, request_id)
        );
    """)
