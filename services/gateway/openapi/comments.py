"""The comments of proto files, by the full name of what they are about."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

#: How a descriptor's children are found in SourceCodeInfo: by the number of their field in descriptor.proto.
_CHILDREN = {
    "FileDescriptorProto": {"message_type": 4, "enum_type": 5, "service": 6},
    "DescriptorProto": {"field": 2, "nested_type": 3, "enum_type": 4},
    "EnumDescriptorProto": {"value": 2},
    "ServiceDescriptorProto": {"method": 2},
}


def comments_of(files: FileDescriptorSet) -> dict[str, str]:
    """Every leading comment, as text whose paragraphs are separated by empty lines."""
    found: dict[str, str] = {}
    for file in files.file:
        texts = {tuple(place.path): _text(place.leading_comments) for place in file.source_code_info.location}
        for name, path in _walk(file, file.package, ()):
            if texts.get(path):
                found[name] = texts[path]
    return found


def _walk(
    descriptor: FileDescriptorProto | Any, name: str, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for children, number in _CHILDREN.get(descriptor.DESCRIPTOR.name, {}).items():
        for position, child in enumerate(getattr(descriptor, children)):
            child_name = f"{name}.{child.name}"
            child_path = (*path, number, position)
            yield child_name, child_path
            yield from _walk(child, child_name, child_path)


def _text(comment: str) -> str:
    lines = [line.strip() for line in comment.strip().split("\n")]
    paragraphs = "\n".join(lines).split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
