"""Reading XML that somebody else wrote."""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat


def read_xml(document: bytes) -> Element:
    """The root element. Raises ValueError for what is not well-formed, and for entities, which can blow up to any size."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        raise ValueError(f"not well-formed XML: {error}") from error
    root = builder.close()
    assert isinstance(root, Element)  # noqa: S101 - the parser has seen a whole document
    return root


def _refuse_entity(name: str, *_: object) -> None:
    raise ValueError(f"entities, as {name!r}, are not accepted")
