"""preprocess: turn raw files into a data set by the recipe."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dlg_ml_tasks.tasks.batches import BATCH_FILE, read_batch
from dlg_ml_tasks.tasks.dataset import DATA, Contents, Entry, item_folder, write_contents
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.execution import Context, Result
from dlg_ml_tasks.tasks.parameters import PreprocessParams
from dlg_ml_tasks.tasks.recipe import load_recipe, load_recipe_class
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.files import download, hash_file

log = logging.getLogger(__name__)


def resolve(params: PreprocessParams, inputs: Mapping[str, Any]) -> Any:
    """Nothing outside the parameters decides; a wrong recipe or setting is refused here."""
    load_recipe(params.recipe, params.settings)


def uses(params: PreprocessParams) -> Sequence[object]:
    """The recipe's code."""
    return [load_recipe_class(params.recipe)]


def perform(context: Context, params: PreprocessParams, raw: Reference) -> Result:
    """Preprocess each raw file of the recipe's kind into its own folder of the artifact `data`; a batch without files becomes an
    empty data set.
    """
    recipe = load_recipe(params.recipe, params.settings)
    source = download(raw, context.folder("raw"))
    batch = read_batch(source)
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    names = [name for name in names if name != BATCH_FILE]
    chosen = [name for name in names if fnmatchcase(Path(name).name, recipe.raw_glob)]
    if not chosen and (names or batch is None):
        raise BadInput(
            f"{raw.uri} holds no file that matches {recipe.raw_glob!r} of recipe {params.recipe!r}; it holds {names[:5]}"
        )
    dataset = context.folder(DATA)
    entries: list[Entry] = []
    skipped: dict[str, str] = {}
    for index, name in enumerate(chosen, 1):
        context.run.progress(f"file {index}/{len(chosen)}")
        out = item_folder(dataset, name)
        out.mkdir(parents=True)
        try:
            recipe.preprocess(source / name, out)
        except BadInput as error:
            if params.on_error == "stop":
                raise BadInput(f"{error}; mend or remove the file, or set on_error=skip") from error
            log.warning("skipped %s: %s", name, error)
            skipped[name] = str(error)
            shutil.rmtree(out)
            continue
        held_back = fnmatchcase(Path(name).name, params.held_back)
        entries.append(Entry(raw=name, raw_sha256=hash_file(source / name), held_back=held_back))
    if skipped and not entries:
        raise BadInput(f"no raw file of {raw.uri} could be preprocessed: {skipped}")
    contents = Contents(
        recipe=params.recipe, settings=params.settings, entries=tuple(entries), skipped=skipped, batch=batch
    )
    write_contents(dataset, contents)
    reference = context.run.log_files(dataset, DATA, context.fingerprint)
    held = sum(entry.held_back for entry in entries)
    return Result(reference, {"files": len(entries), "held_back": held, "skipped": len(skipped)})
