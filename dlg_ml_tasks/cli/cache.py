"""dlg-ml ngas cache: the local copies of archived files that reads go through when DLG_ML_NGAS_CACHE is set."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.progress import track
from rich.table import Table

from dlg_ml_tasks.archive.cache import CacheStore, Copy, cache_settings
from dlg_ml_tasks.cli.output import console, print_json
from dlg_ml_tasks.cli.stack import Json
from dlg_ml_tasks.tasks import BadInput

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List, check and empty the local copies of archived files.\n\n"
    "DLG_ML_NGAS_CACHE chooses a mode (off, online, prefer-cache, offline), DLG_ML_NGAS_CACHE_DIR the folder, "
    "DLG_ML_NGAS_CACHE_BYTES its limit (10GiB).",
)


@app.command("list")
def list_copies(json: Json = False) -> None:
    """List the copies: size, when fetched, when last used, and of which file."""
    store = _store()
    copies = sorted(store.copies(), key=lambda copy: copy.url)
    total = sum(copy.answer.size for copy in copies)
    if json:
        print_json(
            {
                "folder": str(store.folder),
                "limit": store.limit,
                "bytes": total,
                "files": [
                    {
                        "url": copy.url,
                        "size": copy.answer.size,
                        "version": copy.answer.version,
                        "checksum": copy.answer.checksum,
                        "fetched": copy.fetched.isoformat(),
                        "used": copy.used.isoformat(),
                    }
                    for copy in copies
                ],
            }
        )
        return
    if copies:
        table = Table("size", "fetched", "last used", "file", box=None)
        table.columns[0].justify = "right"
        table.columns[-1].overflow = "fold"
        for copy in copies:
            table.add_row(
                f"{copy.answer.size:,}", f"{copy.fetched:%Y-%m-%d %H:%M}", f"{copy.used:%Y-%m-%d %H:%M}", copy.url
            )
        console.print(table)
    console.print(
        f"{len(copies)} files, {decimal(total)} of {decimal(store.limit)}, in {store.folder}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command()
def clear(
    older_than: Annotated[
        float | None, typer.Option(min=0.0, metavar="DAYS", help="Only what was not used for so many days.")
    ] = None,
) -> None:
    """Remove the copies. What is in the archive stays."""
    store = _store()
    before = store.used()
    store.clear(timedelta(days=older_than or 0.0))
    console.print(f"{decimal(before - store.used())} freed in {store.folder}", highlight=False, soft_wrap=True)


@app.command()
def verify(json: Json = False) -> None:
    """Compare every copy with the archive's checksum, and remove those that differ. Exit code 1 if one did."""
    store = _store()
    copies = sorted(store.copies(), key=lambda copy: copy.url)
    damaged: list[Copy] = []
    for copy in track(copies, "checking", console=console, transient=True, disable=json or not console.is_terminal):
        if not store.is_intact(copy):
            damaged.append(copy)
    if json:
        print_json({"checked": len(copies), "damaged": [copy.url for copy in damaged]})
    else:
        for copy in damaged:
            console.print(f"damaged, removed: {copy.url}", style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(f"{len(copies) - len(damaged)} of {len(copies)} copies are intact", highlight=False)
    if damaged:
        raise typer.Exit(1)


def _store() -> CacheStore:
    try:
        settings = cache_settings()
    except ValueError as error:
        raise BadInput(str(error)) from error
    return CacheStore(settings.folder, settings.limit)
