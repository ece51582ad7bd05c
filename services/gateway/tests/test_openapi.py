"""The OpenAPI document: valid, complete, and saying what the transcoder does."""

import json
from pathlib import Path
from typing import Any

import pytest
import traitmesh_proto
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from openapi_spec_validator import validate

from services.gateway.openapi.document import document
from services.gateway.tests.library import PROTO, compile_proto
from services.gateway.transcoding.methods import methods_of, pool_of

TRAITMESH = Path(traitmesh_proto.__path__[0]) / "descriptors.binpb"


def document_of(files: FileDescriptorSet) -> dict[str, Any]:
    made = document(files, methods_of(files, pool_of(files)))
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def library_document(files: FileDescriptorSet) -> dict[str, Any]:
    return document_of(files)


@pytest.fixture(scope="module")
def traitmesh_document() -> dict[str, Any]:
    return document_of(FileDescriptorSet.FromString(TRAITMESH.read_bytes()))


def operations(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in made["paths"].values() for operation in path.values()]


def test_documents_are_valid(library_document: dict[str, Any], traitmesh_document: dict[str, Any]) -> None:
    validate(library_document)
    validate(traitmesh_document)


def test_every_public_method_is_there_once(traitmesh_document: dict[str, Any]) -> None:
    files = FileDescriptorSet.FromString(TRAITMESH.read_bytes())
    served = {f"{m.descriptor.containing_service.name}_{m.descriptor.name}" for m in methods_of(files, pool_of(files))}
    ids = [operation["operationId"] for operation in operations(traitmesh_document)]
    assert len(ids) == len(set(ids))
    assert set(ids) == served
    assert len(served) > 30
    assert all(operation["summary"] for operation in operations(traitmesh_document))
    assert not {"TraitService_ApplyTraits", "LineageService_RecordLineage"} & served


def test_paths_and_their_parameters(library_document: dict[str, Any]) -> None:
    assert set(library_document["paths"]) >= {
        "/v1/shelves/{shelve}/books/{book}:promote",
        "/v1/files/{path}",
        "/v1/failures/{kind}",
        "/v1/everything:echo",
    }
    listing = library_document["paths"]["/v1/shelves/{shelve}/books"]["get"]
    names = [(parameter["in"], parameter["name"]) for parameter in listing["parameters"]]
    assert names[:5] == [
        ("path", "shelve"),
        ("query", "pageSize"),
        ("query", "pageToken"),
        ("query", "tags"),
        ("query", "genres"),
    ]
    assert ("query", "like.author.displayName") in names
    creation = library_document["paths"]["/v1/shelves/{shelve}/books"]["post"]
    assert [parameter["name"] for parameter in creation["parameters"]] == ["shelve", "bookId", "validateOnly"]


def test_names_of_resources_are_those_of_the_proto(traitmesh_document: dict[str, Any]) -> None:
    assert "/v1/workspaces/{workspace}/modelRevisions/{modelRevision}" in traitmesh_document["paths"]
    assert "/v1/workspaces/{workspace}/syncs/{sync}/runs/{run}:retry" in traitmesh_document["paths"]


def test_schemas(library_document: dict[str, Any]) -> None:
    schemas = library_document["components"]["schemas"]
    assert schemas["Book"]["properties"]["copies"] == {"type": "string", "format": "int64"}
    assert schemas["Book"]["properties"]["etag"]["readOnly"] is True
    assert "`GENRE_FICTION`: Made up." in schemas["Genre"]["description"]
    everything = schemas["Everything"]["properties"]
    assert everything["timestamp"]["format"] == "date-time"
    assert everything["counts"] == {"type": "object", "additionalProperties": {"type": "string", "format": "int64"}}
    assert everything["repeatedInt64"]["items"] == {"type": "string", "format": "int64"}
    assert everything["inner"] == {"$ref": "#/components/schemas/Everything"}
    assert "At most one of this, that" in everything["this"]["description"]


def test_bodies(traitmesh_document: dict[str, Any], library_document: dict[str, Any]) -> None:
    paths = traitmesh_document["paths"]
    load = paths["/v1/workspaces/{workspace}/loads"]["post"]
    assert load["requestBody"]["content"] == {"application/octet-stream": {"schema": {}}}
    assert [p["name"] for p in load["parameters"] if p["required"]] == ["workspace", "fileName"]
    profile = paths["/v1/workspaces/{workspace}/profiles/{profile}"]["get"]["responses"]["200"]
    assert profile["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Profile"}
    read = paths["/v1/workspaces/{workspace}/builds/{build}:read"]["get"]["responses"]["200"]
    assert list(read["content"]) == ["application/octet-stream"]
    estimate = paths["/v1/workspaces/{workspace}/audiences:estimate"]["post"]["requestBody"]
    assert "parent" not in estimate["content"]["application/json"]["schema"]["properties"]


def test_permission_and_errors(traitmesh_document: dict[str, Any]) -> None:
    for operation in operations(traitmesh_document):
        assert operation["x-permission"]
        assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}
    assert traitmesh_document["security"] == [{"apiKey": []}]


def test_a_new_method_is_served_and_documented_without_code(tmp_path: Path) -> None:
    source = tmp_path / "library.proto"
    method = """rpc LendBook(BookRequest) returns (Called) {
      option (google.api.http) = {post: "/v1/{name=shelves/*/books/*}:lend" body: "*"};
    }"""
    source.write_text(PROTO.read_text().replace("service Library {", f"service Library {{\n{method}\n"))
    made = document_of(compile_proto(tmp_path, source))
    assert made["paths"]["/v1/shelves/{shelve}/books/{book}:lend"]["post"]["operationId"] == "Library_LendBook"
