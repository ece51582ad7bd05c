"""Makes the code that follows from proto/: Python stubs with types, and the descriptor set.

Everything goes to gen/, which is never edited or committed:

- gen/traitmesh_proto/<package>/v1/*_pb2.py, *_pb2.pyi, *_pb2_grpc.py, *_pb2_grpc.pyi
- gen/traitmesh_proto/descriptors.binpb: every file with its comments, for the gateway and for lint

A method without a permission, and a public method without a path, end the run with a message.
"""

import importlib
import re
import shutil
import sys
from pathlib import Path

import google.api
import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "gen"
PACKAGE = OUT / "traitmesh_proto"
PROTO_PATHS = [
    ROOT / "proto",
    Path(google.api.__path__[0]).parent.parent,
    Path(grpc_tools.__path__[0]) / "_proto",
]


def main() -> None:
    """Generates everything, or exits with the first problem found."""
    sources = sorted(str(path) for path in (ROOT / "proto").rglob("*.proto"))
    shutil.rmtree(PACKAGE, ignore_errors=True)
    staging = OUT / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    _run_protoc(staging, sources)
    _move_into_package(staging / "traitmesh")
    shutil.move(staging / "descriptors.binpb", PACKAGE / "descriptors.binpb")
    shutil.rmtree(staging)
    _check_permissions()


def _run_protoc(staging: Path, sources: list[str]) -> None:
    arguments = [
        "protoc",
        *(f"--proto_path={path}" for path in PROTO_PATHS),
        f"--python_out={staging}",
        f"--grpc_python_out={staging}",
        f"--mypy_out=quiet:{staging}",
        f"--mypy_grpc_out=quiet:{staging}",
        f"--descriptor_set_out={staging / 'descriptors.binpb'}",
        "--include_imports",
        "--include_source_info",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc refused the files above; mend proto/ and run `make gen` again")


def _move_into_package(generated: Path) -> None:
    """Renames the import root, since `traitmesh` is the name of the client that users install."""
    for path in sorted(generated.rglob("*.py*")):
        text = re.sub(r"(?m)^(\s*)(from|import) traitmesh\.", r"\1\2 traitmesh_proto.", path.read_text())
        text = re.sub(r"\btraitmesh\.(\w+)\.v1\.(\w+_pb2)", r"traitmesh_proto.\1.v1.\2", text)
        target = PACKAGE / path.relative_to(generated)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _check_permissions() -> None:
    sys.path.insert(0, str(OUT))
    importlib.invalidate_caches()  # The folder may not have been there when this process started.
    from google.api import annotations_pb2 as http  # noqa: PLC0415
    from traitmesh_proto.api.v1 import annotations_pb2 as annotations  # noqa: PLC0415

    descriptors = FileDescriptorSet.FromString((PACKAGE / "descriptors.binpb").read_bytes())
    problems = []
    for file in descriptors.file:
        if not file.package.startswith("traitmesh."):
            continue
        for service in file.service:
            for method in service.method:
                options: MethodOptions = method.options
                permission = options.Extensions[annotations.permission]
                where = f"{file.name}: {service.name}.{method.name}"
                if not permission:
                    problems.append(f"{where} has no (traitmesh.api.v1.permission)")
                if options.HasExtension(http.http) == (permission == "internal"):
                    problems.append(f"{where}: a public method has a path, an internal one has none")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
