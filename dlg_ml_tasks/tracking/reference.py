"""References: the small JSON documents that travel along a graph while the bytes stay in the archive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

WEIGHTS = "state/weights.safetensors"
"""Where a logged model keeps the file whose sha256 is the digest of a reference to the model."""


class Reference(BaseModel):
    """Names bytes that a finished task left behind. Two references with equal digests name equal bytes.

    `uri` is ``runs:/RUN_ID/PATH`` (kind files) or ``models:/NAME/VERSION`` (kind model). `digest` is a sha256 in hex: of the file
    table (`digest_of`) for files, of the weights file for a model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["files", "model"]
    uri: str = Field(pattern=r"^(runs:/[0-9a-f]{32}(/.+)?|models:/[^/]+/[0-9]+)$")
    run_id: str = Field(pattern=r"^[0-9a-f]{32}$")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")


def digest_of(files: Mapping[str, str]) -> str:
    """Digest of a set of files: sha256 over the canonical JSON of {relative path: sha256 in hex}."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True, separators=(",", ":")).encode()).hexdigest()
