"""Workspaces, traits, model revisions, lineage."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE registry.workspaces (
            workspace text PRIMARY KEY,
            display_name text NOT NULL,
            time_zone text NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE registry.trait_revisions (
            workspace text NOT NULL,
            trait text NOT NULL,
            number integer NOT NULL,
            definition jsonb NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, trait, number)
        );
        CREATE TABLE registry.model_revisions (
            workspace text NOT NULL,
            number integer NOT NULL,
            changes jsonb NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, number)
        );
        CREATE TABLE registry.model_revision_traits (
            workspace text NOT NULL,
            model_revision integer NOT NULL,
            position integer NOT NULL,
            trait text NOT NULL,
            trait_revision integer NOT NULL,
            PRIMARY KEY (workspace, model_revision, position),
            FOREIGN KEY (workspace, model_revision) REFERENCES registry.model_revisions (workspace, number),
            FOREIGN KEY (workspace, trait, trait_revision)
                REFERENCES registry.trait_revisions (workspace, trait, number)
        );
        CREATE TABLE registry.lineage_edges (
            workspace text NOT NULL,
            job text NOT NULL,
            input_namespace text NOT NULL,
            input_dataset text NOT NULL,
            input_field text NOT NULL,
            output_namespace text NOT NULL,
            output_dataset text NOT NULL,
            output_field text NOT NULL,
            influence text NOT NULL,
            partial boolean NOT NULL,
            run text NOT NULL,
            record_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, job, input_namespace, input_dataset, input_field,
                         output_namespace, output_dataset, output_field, influence)
        );
        CREATE INDEX lineage_by_output ON registry.lineage_edges (workspace, output_dataset, output_field);
        CREATE INDEX lineage_by_input ON registry.lineage_edges (workspace, input_dataset, input_field);
        CREATE TABLE registry.requests (
            workspace text NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            answer bytea,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (workspace, request_id)
        );

        CREATE FUNCTION registry.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is immutable', TG_TABLE_NAME USING ERRCODE = 'check_violation';
        END $$;
        CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON registry.trait_revisions
            FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change();
        CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON registry.model_revisions
            FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change();
        CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON registry.model_revision_traits
            FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_change();
    """)
