"""The warehouse of each workspace, made ready when it is first used."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from traitmesh_proto.registry.v1 import workspace_pb2
from traitmesh_proto.registry.v1.workspace_pb2_grpc import WorkspaceServiceStub

from libs.kit import errors
from libs.warehouse import (
    Conflict,
    LimitExceeded,
    Limits,
    SnapshotExpired,
    Unavailable,
    Unsupported,
    Warehouse,
    WarehouseError,
    open_warehouse,
    provision_workspace,
)


@dataclass
class Warehouses:
    """Opens warehouses at one URL for the workspaces that the registry knows."""

    url: str
    limits: Limits
    workspaces: WorkspaceServiceStub
    _ready: set[str] = field(default_factory=set)

    def open(self, workspace: str) -> Warehouse:
        """The warehouse of a workspace; NotFound if there is no such workspace."""
        if workspace not in self._ready:
            self.workspaces.GetWorkspace(workspace_pb2.GetWorkspaceRequest(name=f"workspaces/{workspace}"))
            provision_workspace(self.url, workspace)
            self._ready.add(workspace)
        return open_warehouse(self.url, workspace, self.limits)


@contextmanager
def as_faults() -> Iterator[None]:
    """Turns the warehouse's errors within the block, which hold no values, into ours."""
    try:
        yield
    except Conflict as error:
        raise errors.Conflict(str(error)) from error
    except Unavailable as error:
        raise errors.Unavailable(str(error), part="warehouse") from error
    except LimitExceeded as error:
        raise errors.LimitExceeded(str(error), limit=error.resource) from error
    except (SnapshotExpired, Unsupported) as error:
        raise errors.NotReady(str(error)) from error
    except WarehouseError as error:
        raise WarehouseFault(str(error)) from error


class WarehouseFault(errors.Fault):
    """A statement of ours that the warehouse refuses: repeating it does not help."""
