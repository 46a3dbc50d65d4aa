"""dlg-ml ngas: the embedded server, and files in any NGAS archive by ngas:// URL."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from fsspec.spec import AbstractFileSystem
from rich.progress import track
from rich.table import Table

from dlg_ml_tasks.archive import ChecksumMismatch
from dlg_ml_tasks.archive.opening import open_archive
from dlg_ml_tasks.cli import cache
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
app.add_typer(cache.app, name="cache")
Url = Annotated[str, typer.Argument(help="ngas://HOST:PORT/PATH")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Folders with all below them.")]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def serve(context: typer.Context) -> None:
    """Serve the NGAS protocol from a folder until interrupted."""
    # Its options are declared once, for `python -m dlg_ml_tasks.archive.server` too: the stack starts the server that
    # way, without the weight of this command line.
    from dlg_ml_tasks.archive.server.__main__ import main

    raise typer.Exit(main(context.args, prog="dlg-ml ngas serve"))


@app.command()
def user(
    file: Annotated[Path, typer.Argument(help="Users file of `dlg-ml ngas serve --users`; created if missing.")],
    name: Annotated[str, typer.Argument(help="Who; replaced if there already.")],
    commands: Annotated[
        str, typer.Option(help="NGAS commands the user may send, as RETRIEVE,STATUS,QUERY; * for all.")
    ] = "*",
    open_to_all: Annotated[
        str | None, typer.Option(help="Commands that nobody needs a password for, as STATUS,HELP; '' for none.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the user out.")] = False,
) -> None:
    """Add, change or remove a user of an embedded server. The password is asked for, or read from standard input.

    Only its salted hash is kept. A running server takes the change up within a second.
    """
    from dlg_ml_tasks.archive.server.users import User, Users, UsersFileError, hash_password

    try:
        users = Users.read(file) if file.exists() else Users()
        if open_to_all is not None:
            users = users.model_copy(update={"open_to_all": _command_names(open_to_all)})
        if remove:
            if name not in users.users:
                raise BadInput(f"{file} has no user {name!r}; it has {', '.join(map(repr, users.users)) or 'none'}")
            users.without_user(name).write(file)
            return
        allowed = _command_names(commands)
        users.with_user(name, User(password=hash_password(_password(name)), commands=allowed)).write(file)
    except UsersFileError as error:
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


def _open(url: str) -> tuple[AbstractFileSystem, str]:
    try:
        return open_archive(url)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _command_names(text: str) -> tuple[str, ...]:
    from dlg_ml_tasks.archive.server.commands import COMMANDS

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name != "*" and name not in COMMANDS:
            raise BadInput(
                f"{name!r} is no command of the embedded server; there are * and {', '.join(sorted(COMMANDS))}"
            )
    return names


def _password(name: str) -> str:
    if sys.stdin.isatty():
        password: str = typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise BadInput("the password is empty")
    return password
