"""The command line: `traitmesh --help`. Each group is a module; all of them speak to the gateway alone."""

import sys

import click
import httpx

from traitmesh.cli import audiences, events, lineage, models, profiles, syncs, workspaces
from traitmesh.client import ApiError, Client
from traitmesh.settings import SettingsError, read_settings


class _Group(click.Group):
    """Shows what the gateway refused as a sentence, not as a stack."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ApiError as error:
            lines = [f"error: {error.detail}"]
            if len(error.violations) > 1:
                lines = ["error: some fields are wrong", *(f"  {field}: {right}" for field, right in error.violations)]
            sys.exit("\n".join(lines))
        except httpx.TransportError as error:
            sys.exit(f"error: the gateway does not answer ({type(error).__name__}); is it up? `make status` shows")
        except (SettingsError, TimeoutError) as error:
            sys.exit(f"error: {error}")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", help="The gateway's address. [TRAITMESH_URL]")
@click.option("--api-key", help="The key that opens it. [TRAITMESH_API_KEY]")
@click.option("-w", "--workspace", help="The workspace to work in. [TRAITMESH_WORKSPACE]")
@click.version_option(package_name="traitmesh")
@click.pass_context
def main(context: click.Context, url: str | None, api_key: str | None, workspace: str | None) -> None:
    """Shape, explore, discover, activate: Traitmesh from a terminal."""
    settings = read_settings(url, api_key, workspace)
    context.obj = context.with_resource(Client(settings.url, settings.api_key, settings.workspace))


for group in (workspaces, events, models, audiences, syncs, profiles, lineage):
    for command in group.COMMANDS:
        main.add_command(command)
