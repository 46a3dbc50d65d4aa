"""Mime types the server stores, and the file names it reports for them."""

from __future__ import annotations

from .refusals import Refusal, ngams

# The map of NGAS's own sample configuration: a type outside it is refused there, so it is refused here too.
_TYPE_OF_EXTENSION = {
    "fits": "image/x-fits",
    "nglog": "ngas/nglog",
    "nglog.gz": "application/x-nglog",
    "txt": "text/ascii",
    "log": "text/log-file",
    "log.Z": "application/x-clog",
    "paf": "ngas/paf",
    "fits.gz": "application/x-gfits",
    "fits.Z": "application/x-cfits",
    "hfits": "application/x-hfits",
    "hdr": "image/x-fitshdr",
    "tar": "application/x-tar",
    "tar.gz": "application/x-gtar",
    "pdf": "application/pdf",
    "msg": "multialma/related",
    "bin": "application/octet-stream",
}
_EXTENSION_OF_TYPE = {mime_type: extension for extension, mime_type in _TYPE_OF_EXTENSION.items()}
_GUESS = "ngas/archive-request"  # sent by the NGAS Python client when it knows no type


def mime_type_of(declared: str | None, filename: str, *, quick: bool) -> str:
    """The mime type to store `filename` under, from the declared Content-Type or else from the extension.

    `quick` tells QARCHIVE from ARCHIVE: the two refuse with different words, and only ARCHIVE guesses on request.
    """
    mime_type = (declared or "").partition(";")[0].strip()
    if not mime_type or (mime_type == _GUESS and not quick):
        return _guessed(filename)
    if mime_type in _EXTENSION_OF_TYPE:
        return mime_type
    if quick:
        raise Refusal(f"Unknown mime type: {mime_type}")
    raise Refusal(ngams("NGAMS_ER_UNKNOWN_MIME_TYPE2", mime_type, filename))


def type_or_octets(declared: str | None, filename: str) -> str:
    """The same for a file that must not be refused: one of an unknown type is just bytes."""
    return declared if declared in _EXTENSION_OF_TYPE else _type_of(filename) or _TYPE_OF_EXTENSION["bin"]


def _guessed(filename: str) -> str:
    mime_type = _type_of(filename)
    if mime_type is None:
        raise Refusal(ngams("NGAMS_ER_UNKNOWN_MIME_TYPE1", filename))
    return mime_type


def _type_of(filename: str) -> str | None:
    matching = [extension for extension in _TYPE_OF_EXTENSION if filename.endswith(f".{extension}")]
    return _TYPE_OF_EXTENSION[max(matching, key=len)] if matching else None


def stored_name(base_name: str, mime_type: str) -> str:
    """`base_name` as NGAS would name it on disk: with the type's extension once at its end."""
    extension = f".{_EXTENSION_OF_TYPE[mime_type]}"
    while base_name.endswith(extension * 2):
        base_name = base_name.removesuffix(extension)
    return base_name if base_name.endswith(extension) else base_name + extension
