"""Profiles."""

from dataclasses import dataclass
from datetime import datetime

import grpc
import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Engine
from traitmesh_proto.model.v1 import profile_pb2, profile_pb2_grpc

from libs.kit import errors, names
from services.model_builder.domain import build_name
from services.model_builder.store import profiles

_PROFILE = "workspaces/{workspace}/profiles/{profile}"
_UNKNOWN = "check the user's id; a user whose events are new has a profile after the next `traitmesh build run`"


@dataclass(frozen=True)
class ProfileServicer(profile_pb2_grpc.ProfileServiceServicer):
    """Profiles, as JSON ready to be sent, in PostgreSQL."""

    engine: Engine

    def GetProfile(self, request: profile_pb2.GetProfileRequest, context: grpc.ServicerContext) -> HttpBody:
        workspace, user_id = names.parse(_PROFILE, request.name)
        with self.engine.connect() as tx:
            row = profiles.find_profile(tx, workspace, user_id)
        if row is None:
            # Without the user's id, which is nobody's business but the caller's.
            raise errors.NotFound(f"workspaces/{workspace}/profiles/-", _UNKNOWN)
        header = {
            "name": request.name,
            "modelRevision": f"workspaces/{workspace}/modelRevisions/{row.model_revision}",
            "build": build_name(workspace, row.number),
            "asOf": _as_json(row.as_of),
            "staleness": f"{max(0.0, float(row.age)):.3f}s",
        }
        body = b"%b,%b}" % (orjson.dumps(header)[:-1], bytes(row.body))
        return HttpBody(content_type="application/json", data=body)


def _as_json(moment: datetime) -> str:
    message = Timestamp()
    message.FromDatetime(moment)
    return message.ToJsonString()
