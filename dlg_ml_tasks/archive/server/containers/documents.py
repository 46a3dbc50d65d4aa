"""Containers as XML: the hierarchies and file lists that clients send, and the trees they are answered with."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from ..call import require_plain
from ..refusals import Refusal
from ..status_document import file_attributes, printed
from ..xml_reading import read_xml
from .rows import Container, ContainerNames

_DEEPEST = 32
_MOST_CONTAINERS = 10_000


def read_hierarchy(document: bytes) -> tuple[ContainerNames, str | None]:
    """`<Container name="…" [parentContainerId="…"]>` with more of them inside; gives the tree and the parent's id."""
    root = _read(document)
    if root.tag != "Container" or sum(1 for _ in root.iter()) > _MOST_CONTAINERS:
        raise Refusal(f"The body must be one Container element, with at most {_MOST_CONTAINERS} in all")
    return _names(root, 1), root.get("parentContainerId") or None


def read_file_list(document: bytes) -> list[str]:
    """The ids in `<FileList><File FileId="…"/>…</FileList>`."""
    file_ids = [element.get("FileId", "") for element in _read(document).iter("File")]
    if not file_ids or not all(file_ids):
        raise Refusal('The body must be a list of files: <FileList><File FileId="…"/></FileList>')
    return file_ids


def container_element(container: Container) -> Element:
    """A container with all its files and all below it."""
    attributes: dict[str, object] = {"id": container.container_id, "name": container.name, "size": container.size}
    if container.ingestion_date is not None:
        attributes["ingestionDate"] = container.ingestion_date
    element = Element("Container", printed(attributes))
    for file in container.files:
        SubElement(element, "FileStatus", printed(file_attributes(file)))
    element.extend(container_element(child) for child in container.children)
    return element


def _read(document: bytes) -> Element:
    try:
        return read_xml(document)
    except ValueError as error:
        raise Refusal(f"The body cannot be read: {error}") from None


def _names(element: Element, depth: int) -> ContainerNames:
    if depth > _DEEPEST:
        raise Refusal(f"Containers are nested deeper than {_DEEPEST}")
    name = container_name(element.get("name"))
    return ContainerNames(name, tuple(_names(child, depth + 1) for child in element))


def container_name(name: str | None) -> str:
    """A name that a container can have: not empty, and such that XML, headers and archives can carry it."""
    if name is None or not name.strip():
        raise Refusal("No container_name parameter given, cannot create a nameless container")
    return require_plain("container_name", name.strip())
