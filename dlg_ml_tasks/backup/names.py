"""What MLflow's database names in archives: locations of artifacts, outputs of tasks, weights of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Engine, text

from dlg_ml_tasks.archive import Address, naming, parse_address, split_url
from dlg_ml_tasks.archive.address import SCHEME
from dlg_ml_tasks.backup.errors import BackupError
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.reference import WEIGHTS
from dlg_ml_tasks.tracking.tags import OUTPUT

PROXIED = "mlflow-artifacts"


@dataclass(frozen=True)
class Location:
    """A path in an archive."""

    address: Address
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.address}{self.path}"

    def joined(self, relative: str) -> Location:
        """A path below this one."""
        return Location(self.address, naming.canonical(f"{self.path}/{relative}"))


@dataclass(frozen=True)
class Named:
    """Artifacts that the database promises: at least one file at or below `location`.

    `digest` is that of a reference (see `Reference`): of the table of these files, or of one file's bytes where `is_file`.
    """

    what: str
    location: Location
    digest: str | None
    is_file: bool = False


class ArtifactNames:
    """Reads MLflow's tables. Its REST interface gives the same page by page; a copy of the database has none.

    destination: the archive URL for which ``mlflow-artifacts:/`` stands, which the database does not say.
    """

    def __init__(self, engine: Engine, destination: str | None) -> None:
        self._engine = engine
        self._destination = parsed_location(destination) if destination else None

    def roots(self) -> tuple[list[Location], list[str]]:
        """Where the experiments keep their artifacts: in archives, and elsewhere."""
        locations, elsewhere = [], []
        for (uri,) in self._rows("SELECT DISTINCT artifact_location FROM experiments ORDER BY 1"):
            location = self._located(uri)
            if location is not None:
                locations.append(location)
            elif uri:
                elsewhere.append(uri)
        return locations, elsewhere

    def promised(self) -> list[Named]:
        """The outputs of finished tasks, and the models of registered versions."""
        return [*self._outputs(), *self._models()]

    def _outputs(self) -> list[Named]:
        uris = dict(self._rows("SELECT run_uuid, artifact_uri FROM runs WHERE status = 'FINISHED'"))
        found: dict[str, Named] = {}
        rows = self._rows("SELECT run_uuid, value FROM tags WHERE key = :key ORDER BY run_uuid", key=OUTPUT)
        for run, value in rows:
            reference = Reference.model_validate_json(value)
            # A task may hand on what another one made, as the gate does: that one's row says it.
            location = self._located(uris.get(run)) if reference.run_id == run and reference.kind == "files" else None
            if location is not None:
                path = reference.uri.removeprefix(f"runs:/{run}").strip("/")
                found[reference.uri] = Named(f"output of run {run}", location.joined(path), reference.digest)
        return list(found.values())

    def _models(self) -> list[Named]:
        logged = dict(self._rows("SELECT model_id, artifact_location FROM logged_models"))
        digests = {
            (name, version): value
            for name, version, value in self._rows(
                "SELECT name, version, value FROM model_version_tags WHERE key = 'dlg_ml.digest'"
            )
        }
        found = []
        for name, version, source, storage in self._rows(
            "SELECT name, version, source, storage_location FROM model_versions "
            "WHERE current_stage <> 'Deleted_Internal' ORDER BY 1, 2"
        ):
            what = f"model {name}, version {version}"
            model_id = str(source or "").removeprefix("models:/")
            location = self._located(logged.get(model_id) or storage or source)
            if location is None:
                continue
            found.append(Named(what, location, None))
            if (name, version) in digests:
                found.append(Named(what, location.joined(WEIGHTS), digests[name, version], is_file=True))
        return found

    def _located(self, uri: str | None) -> Location | None:
        """Where a URI leads; None for what is not in an archive."""
        if uri and uri.startswith(SCHEME):
            return parsed_location(uri)
        if uri and self._destination and urlsplit(uri).scheme == PROXIED:
            return self._destination.joined(urlsplit(uri).path)
        return None

    def _rows(self, query: str, **values: str) -> list[tuple[Any, ...]]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]


def parsed_location(url: str) -> Location:
    """Where an ``ngas://host:port/path`` leads. Raises BackupError for what is none."""
    try:
        address, path = split_url(url)
        # MLflow appends to URIs that carry a query; only the path names artifacts.
        return Location(parse_address(str(address)), naming.canonical(path.partition("?")[0]))
    except ValueError as error:
        # The URL itself is not repeated: somebody may have put a password into it.
        raise BackupError(f"an artifact location is not ngas://HOST:PORT/PATH: {error}") from error
