"""What a recipe's results show: declared by the recipe, stored with the results, drawn by whoever has no more than those.

The results site knows no recipe's code. It reads `shows.json`, which `infer` writes beside the results, and draws from the files it
names: pictures, tables, curves, and waterfalls (values over two axes, with masks laid over them).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SHOWS_FILE = "shows.json"
"""Lies at the root of the results."""

WATERFALL = ".waterfall.json"
"""How the name of a waterfall's description ends; see `write_waterfall`."""

# Vermilion, white, pink: each stands out from every colour of viridis, and from one another for the colour-blind.
_MASK_COLOURS = ((255, 90, 54), (255, 255, 255), (255, 130, 220))


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quantity(_Declared):
    """What an axis or a colour measures, in which unit (empty for none)."""

    label: str
    unit: str = ""


class Extent(Quantity):
    """An axis with the values at its two ends: of the first and of the last sample."""

    first: float
    last: float


class Picture(_Declared):
    """Pictures (PNG, JPEG, WebP, GIF) of an item. `files` is a pattern for names in the item's folder."""

    kind: Literal["picture"] = "picture"
    files: str
    caption: str


class Table(_Declared):
    """CSV files of an item, whose first line names the columns."""

    kind: Literal["table"] = "table"
    files: str
    caption: str


class Curves(_Declared):
    """A CSV file of an item, drawn: its first column is x, each other one a curve named by its heading; an empty cell is a gap."""

    kind: Literal["curves"] = "curves"
    file: str
    caption: str
    x: Quantity
    y: Quantity


class Waterfalls(_Declared):
    """What `write_waterfall` wrote for an item. `files` is a pattern for the names of the descriptions."""

    kind: Literal["waterfalls"] = "waterfalls"
    files: str = f"*{WATERFALL}"
    caption: str


Show = Annotated[Picture | Table | Curves | Waterfalls, Field(discriminator="kind")]


class Shows(_Declared):
    """The content of `shows.json`: what to show of each item, in this order."""

    shows: tuple[Show, ...]


class Layer(_Declared):
    """A mask over a waterfall: a picture of one colour and nothing, and which fraction of the samples it covers."""

    name: str
    file: str
    fraction: float


class Waterfall(_Declared):
    """The content of a waterfall's description. Files lie beside it; each is one pixel per sample, first row on top."""

    title: str
    file: str
    x: Extent
    y: Extent
    value: Extent
    layers: tuple[Layer, ...]


def write_waterfall(
    out: Path,
    name: str,
    values: npt.NDArray[np.floating],
    *,
    title: str,
    x: Extent,
    y: Extent,
    value: Extent,
    masks: Mapping[str, npt.NDArray[np.bool_]],
) -> None:
    """Write a waterfall into the folder `out`: ``NAME.waterfall.json``, and one lossless WebP picture each for values and masks.

    `values` is (rows, columns), drawn in viridis from `value.first` to `value.last`; `x` is along columns, `y` along rows. `masks`
    are bool of the same shape, by the name that readers see; the first is shown from the start, the others on demand.
    """
    import numpy as np
    from matplotlib.image import imsave

    lossless = {"lossless": True, "method": 4}
    picture = f"{name}.values.webp"
    imsave(out / picture, values, cmap="viridis", vmin=value.first, vmax=value.last, pil_kwargs=lossless)
    layers = []
    for number, (mask_name, mask) in enumerate(masks.items()):
        file = f"{name}.mask{number + 1}.webp"
        pixels = np.zeros((*mask.shape, 4), np.uint8)
        pixels[mask] = (*_MASK_COLOURS[number % len(_MASK_COLOURS)], 255)
        imsave(out / file, pixels, pil_kwargs=lossless)
        layers.append(Layer(name=mask_name, file=file, fraction=float(mask.mean()) if mask.size else 0.0))
    described = Waterfall(title=title, file=picture, x=x, y=y, value=value, layers=tuple(layers))
    (out / f"{name}{WATERFALL}").write_text(described.model_dump_json(indent=1))
