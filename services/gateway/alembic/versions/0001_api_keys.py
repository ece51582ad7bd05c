"""API keys."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE gateway.api_keys (
            id text PRIMARY KEY,
            workspace text NOT NULL,
            role text NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
            display_name text NOT NULL,
            sha256 bytea NOT NULL CHECK (length(sha256) = 32),
            create_time timestamptz NOT NULL DEFAULT now(),
            expire_time timestamptz,
            revoke_time timestamptz,
            last_use_time timestamptz
        );
    """)
