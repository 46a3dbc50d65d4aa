"""Simulated HERA nights with hera_sim: sky, noise, receiver and interference, as UVH5 files with their exact truth beside them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from dlg_ml_tasks.recipes.rfi.files import replacing
from dlg_ml_tasks.recipes.rfi.interference import Interference, draw_interference
from dlg_ml_tasks.recipes.rfi.observation import Baseline, Complex
from dlg_ml_tasks.recipes.rfi.truth import Truth, truth_path, write_truth
from dlg_ml_tasks.recipes.rfi.uvh5 import HERA_LONGITUDE, hera_telescope, write_observation
from dlg_ml_tasks.tasks.errors import BadInput

TIMES, CHANNELS = 64, 1024
INTEGRATION_SECONDS = 10.7
FREQUENCIES: Final = 100e6 + np.arange(CHANNELS) * 100e6 / CHANNELS
SKY_SCALE = (1.0, 20.0)
"""Range of |V| / sigma, drawn log-uniformly per waterfall: real uncalibrated baselines have 2.4, calibrated 14.6 m ones 14."""

SKY_STEP = 4
"""The sky is simulated at every fourth integration (43 s) and interpolated: on baselines this short it turns once in 20 minutes."""

REAL_OBSERVATION = "zen.2458101.46106.xx.HH.OCR_53x_54x_only.uvh5"

Role = Literal["train", "heldback"]

BASELINES: Final[dict[Role, tuple[tuple[int, int], ...]]] = {
    "train": ((53, 54), (53, 55), (38, 53), (65, 67), (39, 53), (82, 85)),
    "heldback": ((51, 52), (66, 68), (36, 51), (83, 84), (26, 39), (67, 70)),
}
"""Antenna pairs 14.6 to 44 m apart. Held-back observations come from other pairs, skies and hours than training ones."""


MOST_BASELINES: Final = 6


@dataclass(frozen=True)
class Night:
    """A state of the instrument and of what transmits around it."""

    letter: str
    start_jd: float
    bandpass: str
    bandpass_interpolator: str
    receiver_kelvin: float
    reflection: float
    interference: Interference
    train_files: int
    held_back_files: int


NIGHTS: Final = {
    "A": Night(
        letter="A",
        start_jd=2458101.20,
        bandpass="HERA_H1C_BANDPASS.npy",
        bandpass_interpolator="poly1d",
        receiver_kelvin=100.0,
        reflection=0.0,
        interference=Interference(inr_decades=(0.0, 2.5)),
        train_files=16,
        held_back_files=5,
    ),
    "B": Night(
        letter="B",
        start_jd=2459122.20,
        bandpass="HERA_H4C_BANDPASS.npz",
        bandpass_interpolator="interp1d",
        receiver_kelvin=250.0,
        reflection=0.03,
        interference=Interference(inr_decades=(-0.2, 2.2), television_chance=0.15, bursts=(3, 9)),
        train_files=8,
        held_back_files=5,
    ),
}


def simulate_night(
    night: Night,
    out: Path,
    seed: int,
    train_files: int | None = None,
    held_back_files: int | None = None,
    baselines: int = 6,
) -> list[Path]:
    """Write a night's observations and truths into the folder `out`; returns the observations' paths.

    Files ``zen.<letter>.train.NN.uvh5`` and ``zen.<letter>.heldback.NN.uvh5`` hold 64 times x 1024 channels of one to six
    baselines. Same arguments and package versions, same bytes. Raises BadInput if hera_sim is not installed.
    """
    try:
        import hera_sim  # noqa: F401
    except ImportError as error:
        raise BadInput("simulating needs hera_sim: pip install 'dlg-ml-tasks[rfi]'") from error
    if not 1 <= baselines <= MOST_BASELINES:
        raise BadInput(f"{baselines} baselines per file; give 1 to {MOST_BASELINES}")
    counts: dict[Role, int] = {
        "train": night.train_files if train_files is None else train_files,
        "heldback": night.held_back_files if held_back_files is None else held_back_files,
    }
    written: list[Path] = []
    for role, count in counts.items():
        if count:
            written += _simulate_role(night, role, count, out, seed, BASELINES[role][:baselines])
    return written


def copy_real_observation(out: Path) -> Path:
    """Copy a real HERA observation of 2017 with its pipeline's flags out of the package hera-calibration, as it is."""
    try:
        package = files("hera_cal")
    except ModuleNotFoundError as error:
        raise BadInput(
            "the real observation comes with hera-calibration; install the extra: pip install 'dlg-ml-tasks[rfi]'"
        ) from error
    target = out / REAL_OBSERVATION
    with as_file(package.joinpath("data/test_input", REAL_OBSERVATION)) as source:
        if not source.exists():
            raise BadInput(f"the installed hera-calibration has no {REAL_OBSERVATION}; install version 3.8")
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    return target


def _simulate_role(
    night: Night, role: Role, count: int, out: Path, seed: int, pairs: tuple[tuple[int, int], ...]
) -> Iterator[Path]:
    telescope = hera_telescope()
    baselines = tuple(Baseline(a, b, "xx") for a, b in pairs)
    stream = [seed, ord(night.letter), list(BASELINES).index(role)]
    sky = Sky(night, _vectors_ns(telescope, pairs), np.random.default_rng([*stream, 0]))
    history = f"Simulated with hera_sim: night {night.letter}, {role}, seed {seed}."
    for number in range(count):
        # Observations of a role are half an hour apart; held-back ones lie between the training ones.
        start = night.start_jd + (number * 30 + (15 if role == "heldback" else 0)) / (24 * 60)
        times = start + np.arange(TIMES) * INTEGRATION_SECONDS / 86400
        visibilities, truth = sky.observe(times, np.random.default_rng([*stream, 1, number]))
        path = out / f"zen.{night.letter}.{role}.{number:02d}.uvh5"
        write_truth(truth_path(path), truth, [str(baseline) for baseline in baselines])
        write_observation(path, telescope, baselines, visibilities, times, FREQUENCIES, history)
        yield path


def _vectors_ns(telescope: Any, pairs: tuple[tuple[int, int], ...]) -> npt.NDArray[np.float64]:
    """Baseline vectors east, north, up in nanoseconds of light travel."""
    positions = dict(zip(telescope.antenna_numbers.tolist(), telescope.get_enu_antpos(), strict=True))
    return np.array([(positions[b] - positions[a]) / 0.299792458 for a, b in pairs])


class Sky:
    """One sky over the sidereal day as each baseline sees it, and the receiver that observes it."""

    def __init__(self, night: Night, vectors_ns: npt.NDArray[np.float64], rng: np.random.Generator) -> None:
        from hera_sim import interpolators

        self.night = night
        self.vectors_ns = vectors_ns
        self.ghz = FREQUENCIES / 1e9
        self.temperature = interpolators.Tsky("HERA_Tsky_Reformatted.npz", pol="xx")
        self.beam = interpolators.Beam("HERA_H1C_BEAM_POLY.npy", interpolator="poly1d")
        self.bandpass = interpolators.Bandpass(night.bandpass, interpolator=night.bandpass_interpolator)
        steps = round(86164.1 / (INTEGRATION_SECONDS * SKY_STEP))
        # hera_sim piles point sources outside the given times on their ends: simulate a whole day, then cut.
        self.lsts = np.arange(steps) * 2 * np.pi / steps
        self.days = [self._day(vector, rng) for vector in vectors_ns]

    def observe(self, times: npt.NDArray[np.float64], rng: np.random.Generator) -> tuple[Complex, Truth]:
        """Visibilities complex64 (B, T, F) in correlator units at Julian dates `times`, and their truth."""
        lsts = _sidereal_times(times)
        waterfalls = [self._waterfall(day, lsts, rng) for day in self.days]
        visibilities, inr, kinds = (np.stack(part) for part in zip(*waterfalls, strict=True))
        return visibilities, Truth(inr, kinds)

    def _day(self, vector_ns: npt.NDArray[np.float64], rng: np.random.Generator) -> Complex:
        from hera_sim.foregrounds import DiffuseForeground, PointSourceForeground

        diffuse = DiffuseForeground(Tsky_mdl=self.temperature, omega_p=self.beam, rng=rng)
        points = PointSourceForeground(nsrcs=1000, rng=rng)
        day: npt.NDArray[np.complex128] = diffuse(self.lsts, self.ghz, vector_ns) + points(
            self.lsts, self.ghz, vector_ns
        )
        return day.astype(np.complex64)

    def _waterfall(
        self, day: Complex, lsts: npt.NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[Complex, npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
        from hera_sim.noise import ThermalNoise

        noise = ThermalNoise(
            Tsky_mdl=self.temperature,
            omega_p=self.beam,
            integration_time=INTEGRATION_SECONDS,
            channel_width=100e6 / CHANNELS,
            Trx=self.night.receiver_kelvin,
            rng=rng,
        )(lsts, self.ghz)
        sigma = self._sigma(lsts)
        sky = self._cut(day, lsts)
        wanted = np.exp(rng.uniform(*np.log(SKY_SCALE)))
        sky *= wanted / np.median(np.abs(sky) / sigma)
        interference, kinds = draw_interference(self.night.interference, lsts, self.ghz, rng)
        received = sky + noise + interference * sigma
        return (
            (received * self._gain(rng)).astype(np.complex64),
            np.abs(interference).clip(max=60000).astype(np.float16),
            kinds,
        )

    def _sigma(self, lsts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Standard deviation of a real component of hera_sim's thermal noise, in Jy, (T, F): the radiometer equation."""
        from hera_sim.utils import jansky_to_kelvin

        kelvin = self.temperature(lsts, self.ghz) + self.night.receiver_kelvin
        samples = INTEGRATION_SECONDS * 100e6 / CHANNELS
        sigma: npt.NDArray[np.float64] = kelvin / np.sqrt(2 * samples) / jansky_to_kelvin(self.ghz, self.beam)
        return sigma

    def _cut(self, day: Complex, lsts: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
        """The sky at the given sidereal times, by a cubic spline through the coarser day."""
        from scipy.interpolate import CubicSpline

        step = self.lsts[1]
        unwrapped = np.unwrap(lsts)
        rows = np.arange(int(unwrapped[0] / step) - 4, int(unwrapped[-1] / step) + 6)
        sky: npt.NDArray[np.complex128] = CubicSpline(rows * step, day[rows % len(day)].astype(complex))(unwrapped)
        return sky

    def _gain(self, rng: np.random.Generator) -> npt.NDArray[np.complex128]:
        """Product of the two antennas' gains, (F,)."""
        from hera_sim.sigchain import Bandpass, Reflections

        gains = Bandpass(bp_poly=self.bandpass, rng=rng)(self.ghz, [0, 1])
        gain = gains[0] * np.conj(gains[1])
        if self.night.reflection:
            reflections = Reflections(amp=self.night.reflection, dly=(150.0, 1200.0), rng=rng)(self.ghz, [0, 1])
            gain = gain * reflections[0] * np.conj(reflections[1])
        return np.asarray(gain)


def _sidereal_times(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Local mean sidereal times at HERA in radians, unwrapped, from Julian dates."""
    turns = 0.7790572732640 + 1.00273781191135448 * (times - 2451545.0) + HERA_LONGITUDE / 360
    lsts: npt.NDArray[np.float64] = 2 * np.pi * (turns - np.floor(turns[0]))
    return lsts
