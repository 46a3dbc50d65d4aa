"""dlg-ml ngas: the embedded server, and files in any NGAS archive by ngas:// URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import fsspec
import typer
from rich.progress import track
from rich.table import Table

from dlg_ml_tasks.archive import ChecksumMismatch, NgasFileSystem
from dlg_ml_tasks.cli.output import console, fail, print_json
from dlg_ml_tasks.cli.stack import Json
from dlg_ml_tasks.tasks import BadInput

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Serve an archive, and list, copy, remove and check files in one.\n\n"
    "Files are named by URL: `ngas://HOST:PORT/PATH`. A user name and password come from the environment variables "
    "DLG_ML_NGAS_USER and DLG_ML_NGAS_PASSWORD, never from the URL.",
)
Url = Annotated[str, typer.Argument(help="ngas://HOST:PORT/PATH")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Folders with all below them.")]


@app.command()
def serve(
    root: Annotated[Path, typer.Option(help="Folder that holds the archive; created if missing.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7777,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Beyond loopback anybody may read, write and delete.")
    ] = "127.0.0.1",
) -> None:
    """Serve the NGAS protocol from a folder until interrupted."""
    from dlg_ml_tasks.archive.server import ServerStartError
    from dlg_ml_tasks.archive.server import serve as serve_archive

    try:
        serve_archive(root, host=host, port=port)
    except ServerStartError as error:
        fail(str(error))


@app.command()
def ls(url: Url, recursive: Recursive = False, json: Json = False) -> None:
    """List a folder (or everything below it) with sizes and dates."""
    fs, path = _open(url)
    entries = list(fs.find(path, detail=True).values()) if recursive else fs.ls(path, detail=True)
    if json:
        print_json(
            [
                {key: str(e[key]) if key == "created" else e.get(key) for key in ("name", "type", "size", "created")}
                for e in entries
            ]
        )
        return
    table = Table(box=None, show_header=False)
    table.add_column(justify="right")
    for entry in entries:
        folder = entry["type"] == "directory"
        table.add_row(
            "" if folder else f"{entry['size']:,}",
            f"{entry.get('created') or '':.19}",
            entry["name"] + ("/" if folder else ""),
        )
    console.print(table)


@app.command()
def get(
    url: Url, target: Annotated[Path, typer.Argument(help="Local file or folder.")], recursive: Recursive = False
) -> None:
    """Copy from the archive; size and checksum are verified."""
    fs, path = _open(url)
    with console.status(f"getting {url} …"):
        fs.get(path, os.fspath(target), recursive=recursive)


@app.command()
def put(
    source: Annotated[Path, typer.Argument(help="Local file or folder.")], url: Url, recursive: Recursive = False
) -> None:
    """Copy into the archive; the archive's checksum is compared."""
    if not source.exists():
        raise BadInput(f"{str(source)!r} does not exist")
    fs, path = _open(url)
    with console.status(f"putting {source} …"):
        fs.put(os.fspath(source), path, recursive=recursive)


@app.command()
def rm(url: Url, recursive: Recursive = False) -> None:
    """Remove a file, or a folder with --recursive; the archive frees the bytes of all versions."""
    fs, path = _open(url)
    if fs.isdir(path) and not recursive:
        raise BadInput(f"{url} is a folder; add --recursive to remove all below it")
    fs.rm(path, recursive=recursive)


@app.command()
def check(url: Url) -> None:
    """Have the archive compare every file below the URL with its checksum. Exit code 1 if one differs."""
    fs, path = _open(url)
    files = fs.find(path)
    if not files:
        raise BadInput(f"{url} holds no file")
    bad = []
    for file in track(files, "checking", console=console, transient=True, disable=not console.is_terminal):
        try:
            fs.check(file)
        except ChecksumMismatch as error:
            bad.append(file)
            console.print(f"damaged: {file} ({error})", style="red", markup=False, highlight=False)
    console.print(f"{len(files) - len(bad)} of {len(files)} files are intact", highlight=False)
    if bad:
        raise typer.Exit(1)


def _open(url: str) -> tuple[NgasFileSystem, str]:
    if not url.startswith("ngas://"):
        raise BadInput(f"{url!r} is no archive URL; write ngas://HOST:PORT/PATH")
    fs, path = fsspec.url_to_fs(url)
    return fs, path
