"""Starts MLflow in its container: `serve.py server`, or `serve.py upgrade` to bring its database to this version's schema.

`serve.py dlg-ml backup ...` runs a command that finds MLflow's database and archive in the variables of `mlflow server`.

The database's password comes from a file and goes to the driver in another one: a URI with it would stand in the server's
command line and in the environment of its workers.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import psycopg

from dlg_ml_tasks.archive.address import split_url

WAIT_S = 300
PASSFILE = Path("/tmp/pgpass")  # noqa: S108  a tmpfs of the container's own

HOST = os.environ.get("POSTGRES_HOST", "postgres")
USER = os.environ.get("POSTGRES_USER", "mlflow")
DATABASE = os.environ.get("POSTGRES_DB", "mlflow")
URI = f"postgresql+psycopg://{USER}@{HOST}:5432/{DATABASE}"


def main(command: str, *arguments: str) -> None:
    """Prepare the password, wait for the database, and become MLflow or a command of dlg-ml."""
    archive = read_archive()
    write_passfile(read_secret())
    os.environ["PGPASSFILE"] = str(PASSFILE)
    wait_for_database()
    if command == "upgrade":
        become("mlflow", "db", "upgrade", URI)
    if command == "dlg-ml":
        # As MLflow's own server reads them; the password is in the file alone.
        os.environ |= {"MLFLOW_BACKEND_STORE_URI": URI, "MLFLOW_ARTIFACTS_DESTINATION": archive}
        become("dlg-ml", *arguments)
    become(
        *("mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--backend-store-uri", URI),  # noqa: S104
        # Clients that have the plugin go to the archive themselves; an experiment with the location mlflow-artifacts:/
        # goes through this server, and its clients need nothing.
        *("--default-artifact-root", archive, "--serve-artifacts", "--artifacts-destination", archive),
        *("--allowed-hosts", os.environ.get("MLFLOW_ALLOWED_HOSTS", "localhost:*,127.0.0.1:*,mlflow:*")),
        # With several workers every call on a kept-alive connection costs 40 ms more (delayed acknowledgement).
        *("--workers", "1", "--uvicorn-opts", "--no-access-log"),
    )


def read_archive() -> str:
    """The URL in DLG_ML_ARCHIVE, below which artifacts lie."""
    url = os.environ.get("DLG_ML_ARCHIVE", "ngas://ngas:7777/mlflow")
    try:
        split_url(url)
    except ValueError as error:
        fail(f"DLG_ML_ARCHIVE: {error}")
    return url


def read_secret() -> str:
    """The password in the file that POSTGRES_PASSWORD_FILE names."""
    name = os.environ.get("POSTGRES_PASSWORD_FILE")
    if not name:
        fail("POSTGRES_PASSWORD_FILE is not set; it names the file with the database's password")
    try:
        password = Path(name).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"the secret {name} cannot be read: {error}")
    if not password or "\n" in password:
        fail(f"the secret {name} must hold a password on one line; make it with: sh deploy/make-secrets.sh")
    return password


def write_passfile(password: str) -> None:
    """Write the driver's password file, which only this user can read."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    PASSFILE.unlink(missing_ok=True)
    descriptor = os.open(PASSFILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{HOST}:5432:*:{USER}:{escaped}\n")


def wait_for_database() -> None:
    """Return when the database answers; leave if it refuses the password, or is silent for WAIT_S seconds."""
    deadline = time.monotonic() + WAIT_S
    said = ""
    while True:
        try:
            psycopg.connect(host=HOST, user=USER, dbname=DATABASE, passfile=str(PASSFILE), connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            reason = str(error).strip().splitlines()[-1]
        if "authentication failed" in reason:
            fail(
                f"PostgreSQL at {HOST} refuses the password of {USER} ({reason}); it keeps the one that its volume was made with"
            )
        if time.monotonic() > deadline:
            fail(f"PostgreSQL at {HOST} has not answered for {WAIT_S} s ({reason})")
        if reason != said:
            say(f"waiting for PostgreSQL at {HOST}: {reason}")
            said = reason
        time.sleep(2)


def become(*command: str) -> NoReturn:
    """Replace this process by another program."""
    os.execvp(command[0], command)  # noqa: S606  no shell, and nothing from outside in it


def say(message: str) -> None:
    """One line in the container's log."""
    print(f"mlflow: {message}", file=sys.stderr, flush=True)


def fail(message: str) -> NoReturn:
    """Say what is wrong and leave."""
    say(message)
    sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1:] not in (["server"], ["upgrade"]) and sys.argv[1:2] != ["dlg-ml"]:
        fail(f"unknown command {sys.argv[1:]}; write server, upgrade, or dlg-ml with its arguments")
    main(*sys.argv[1:])
