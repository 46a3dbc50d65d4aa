"""The entry point of MLflow's artifact-repository plugin; free of mlflow imports.

MLflow loads entry points while it is half imported: a plugin module that imports mlflow at its top fails there, and MLflow then
leaves the scheme unregistered. A plain function that imports on its first call works in every import order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlg_ml_tasks.tracking.artifacts import NgasArtifactRepository


def ngas_artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> NgasArtifactRepository:
    """Build the repository for an artifact URI ``ngas://host:port/path``."""
    from dlg_ml_tasks.tracking.artifacts import NgasArtifactRepository

    return NgasArtifactRepository(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
