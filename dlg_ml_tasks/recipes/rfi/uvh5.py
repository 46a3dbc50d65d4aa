"""Reading and writing HERA's file format with pyuvdata; the only module that knows of UVData objects."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlg_ml_tasks.recipes.rfi.files import replacing
from dlg_ml_tasks.recipes.rfi.observation import Baseline, Complex, Mask, Observation
from dlg_ml_tasks.tasks.errors import BadInput

HERA_LONGITUDE, HERA_LATITUDE, HERA_ALTITUDE = 21.42830382686301, -30.72152612068925, 1051.69
"""Degrees, degrees, metres: the array centre as in HERA's own files."""


def open_uvh5(path: Path) -> Any:
    """Read a file into a UVData object, checked. Raises BadInput naming the file if that fails."""
    from pyuvdata import UVData

    try:
        # Autos are not flagged here, so their rounding residue in the imaginary part (H1C files have it) is left alone.
        return UVData.from_file(path, file_type="uvh5", check_autos=False, fix_autos=False)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(
            f"{path.name}: not a readable UVH5 observation ({reason}); check the file, or leave it out"
        ) from error


def read_observation(path: Path) -> Observation:
    """Read the cross-correlations. Raises BadInput naming the file if it has none, or baselines of unequal length."""
    uvdata = open_uvh5(path)
    baselines = cross_baselines(uvdata)
    if not baselines:
        raise BadInput(
            f"{path.name}: holds no cross-correlation; auto-correlations alone cannot be flagged by this recipe"
        )
    keys = [(b.antenna1, b.antenna2, b.polarisation) for b in baselines]
    visibilities = [uvdata.get_data(key) for key in keys]
    if len({len(v) for v in visibilities}) > 1 or len(visibilities[0]) != uvdata.Ntimes:
        raise BadInput(f"{path.name}: its baselines have different numbers of times; select a rectangular part first")
    if uvdata.Ntimes < 2:
        raise BadInput(f"{path.name}: holds a single time; at least two are needed to estimate the noise")
    return Observation(
        baselines=tuple(baselines),
        visibilities=np.stack(visibilities).astype(np.complex64, copy=False),
        flags=np.stack([uvdata.get_flags(key) for key in keys]),
        times=np.unique(uvdata.time_array),
        frequencies=np.asarray(uvdata.freq_array, np.float64),
    )


def cross_baselines(uvdata: Any) -> list[Baseline]:
    """Baselines between different antennas, all polarisations, in the file's order."""
    return [
        Baseline(int(a), int(b), str(polarisation))
        for a, b in uvdata.get_antpairs()
        if a != b
        for polarisation in _polarisations(uvdata)
    ]


def _polarisations(uvdata: Any) -> list[str]:
    """Names by feed (xx), which HERA's file names use; get_pols says ee where the feeds' orientation is known."""
    from pyuvdata.utils import polnum2str

    return [str(name) for name in polnum2str(uvdata.polarization_array)]


def write_flagged_copy(raw: Path, out: Path, flags: Mapping[str, Mask], note: str) -> None:
    """Write a copy of `raw` whose flags of the named waterfalls (bool (T, F) each) are replaced; `note` goes into its history."""
    uvdata = open_uvh5(raw)
    polarisations = _polarisations(uvdata)
    for name, mask in flags.items():
        baseline = Baseline.parse(name)
        rows = uvdata.antpair2ind(baseline.antenna1, baseline.antenna2)
        uvdata.flag_array[rows, :, polarisations.index(baseline.polarisation)] = mask
    uvdata.history += f"\n{note}"
    with replacing(out) as temporary:
        # check_autos as in open_uvh5.
        uvdata.write_uvh5(temporary, clobber=True, check_autos=False, fix_autos=False)


def hera_telescope() -> Any:
    """HERA with its surveyed antenna positions.

    Telescope.from_known_telescopes("HERA") would ask astropy's list of sites on the internet first, so it is built by hand.
    """
    import astropy.units as u
    from astropy.coordinates import EarthLocation
    from pyuvdata import Telescope

    with files("pyuvdata").joinpath("data/hera_ant_pos.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return Telescope.new(
        name="HERA",
        location=EarthLocation.from_geodetic(HERA_LONGITUDE * u.deg, HERA_LATITUDE * u.deg, HERA_ALTITUDE * u.m),
        antenna_names=[row["name"] for row in rows],
        antenna_numbers=[int(row["number"]) for row in rows],
        antenna_positions=np.array([[float(row[axis]) for axis in "xyz"] for row in rows]),
        instrument="HERA",
        mount_type="fixed",
        x_orientation="east",
        antenna_diameters=np.full(len(rows), 14.0),
        feeds=["x", "y"],
        update_from_known=False,
    )


def write_observation(
    path: Path,
    telescope: Any,
    baselines: tuple[Baseline, ...],
    visibilities: Complex,
    times: npt.NDArray[np.float64],
    frequencies: npt.NDArray[np.float64],
    history: str,
) -> None:
    """Write uncalibrated visibilities (B, T, F) of one polarisation as UVH5, unflagged. Equal arguments give equal bytes."""
    from pyuvdata import UVData

    shape = (visibilities.shape[0] * visibilities.shape[1], visibilities.shape[2], 1)
    with _bundled_earth_orientation():
        uvdata = UVData.new(
            freq_array=frequencies,
            polarization_array=[baselines[0].polarisation],
            # One pair and time per row: given unique pairs, UVData.new would sort them and not the data.
            antpairs=np.repeat([(b.antenna1, b.antenna2) for b in baselines], times.size, axis=0),
            times=np.tile(times, len(baselines)),
            telescope=telescope,
            do_blt_outer=False,
            integration_time=float(np.median(np.diff(times)) * 86400),
            channel_width=float(np.median(np.diff(frequencies))),
            data_array=visibilities.reshape(shape),
            flag_array=np.zeros(shape, bool),
            nsample_array=np.ones(shape, np.float32),
            vis_units="uncalib",
            update_telescope_from_known=False,
        )
    # UVData.new writes the time of day into the history, which would make equal observations differ.
    uvdata.history = history
    with replacing(path) as temporary, _bundled_earth_orientation():
        uvdata.write_uvh5(temporary, clobber=True)


@contextmanager
def _bundled_earth_orientation() -> Iterator[None]:
    """Keep astropy from fetching newer tables of the Earth's rotation: sidereal times would depend on the day of the simulation."""
    from astropy.utils.iers import conf

    with conf.set_temp("auto_download", False):
        yield
