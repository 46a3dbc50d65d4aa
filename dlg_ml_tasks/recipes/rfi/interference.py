"""Simulated interference in units of the noise: hera_sim's transmitters, impulses, scatter, television, and bursts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlg_ml_tasks.recipes.rfi.settings import KINDS, TRUTH_INR

STATION_BANDS_GHZ = (
    (0.1003, 0.108),
    (0.137, 0.1375),
    (0.1455, 0.1461),
    (0.1495, 0.1503),
    (0.174, 0.1925),
    (0.101, 0.1997),
)
"""FM radio, ORBCOMM, the ISS, a 150 MHz carrier, television carriers, anywhere.

Below 199.8 MHz: hera_sim's RfiStation raises IndexError for a transmitter in the last channel.
"""

TELEVISION_GHZ = (0.174, 0.1975)
"""hera_sim's DTV steps through the band by 8 MHz; an upper edge of 198 MHz would give a fourth channel by rounding."""


@dataclass(frozen=True)
class Interference:
    """How much of each kind there is in one waterfall (64 times), and how strong."""

    inr_decades: tuple[float, float]
    stations: tuple[int, int] = (6, 22)
    impulse_chance: float = 0.018
    scatter_chance: float = 0.0008
    television_chance: float = 0.0
    bursts: tuple[int, int] = (0, 5)


def draw_interference(
    model: Interference, lsts: npt.NDArray[np.float64], ghz: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.uint8]]:
    """Interference of one waterfall, complex (T, F) in units of the noise sigma, and the bit mask of its kinds, uint8 (T, F)."""
    parts = {
        "stations": _stations(model, lsts, ghz, rng),
        "impulse": _impulses(model, lsts, ghz, rng),
        "scatter": _scatter(model, lsts, ghz, rng),
        "dtv": _television(model, lsts, ghz, rng),
        "burst": _bursts(model, lsts, ghz, rng),
    }
    kinds = np.zeros((lsts.size, ghz.size), np.uint8)
    for bit, kind in enumerate(KINDS):
        kinds |= (np.abs(parts[kind]) > TRUTH_INR).astype(np.uint8) << bit
    total: npt.NDArray[np.complex128] = np.sum(list(parts.values()), axis=0)
    return total, kinds


def _inr(model: Interference, rng: np.random.Generator) -> float:
    return float(10 ** rng.uniform(*model.inr_decades))


def _stations(
    model: Interference, lsts: npt.NDArray[np.float64], ghz: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.complex128]:
    from hera_sim.rfi import RfiStation

    found = np.zeros((lsts.size, ghz.size), complex)
    for _ in range(rng.integers(*model.stations, endpoint=True)):
        band = STATION_BANDS_GHZ[rng.choice(len(STATION_BANDS_GHZ), p=(0.35, 0.1, 0.05, 0.05, 0.25, 0.2))]
        strength = _inr(model, rng)
        # One RfiStation each: hera_sim's Stations does not hand its random generator on to them.
        station = RfiStation(
            f0=rng.uniform(*band),
            duty_cycle=1.0 if rng.random() < 0.5 else rng.uniform(0.1, 0.9),
            strength=strength,
            std=strength * rng.uniform(0.05, 0.5),
            timescale=10 ** rng.uniform(1.8, 3.2),
            rng=rng,
        )
        found += station(lsts, ghz)
    return found


def _impulses(
    model: Interference, lsts: npt.NDArray[np.float64], ghz: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.complex128]:
    from hera_sim.rfi import Impulse

    # Two calls, because all impulses of one call are equally strong.
    calls = [Impulse(model.impulse_chance / 2, _inr(model, rng), rng=rng) for _ in range(2)]
    impulses: npt.NDArray[np.complex128] = calls[0](lsts, ghz) + calls[1](lsts, ghz)
    return impulses


def _scatter(
    model: Interference, lsts: npt.NDArray[np.float64], ghz: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.complex128]:
    from hera_sim.rfi import Scatter

    strength = _inr(model, rng)
    scatter: npt.NDArray[np.complex128] = Scatter(model.scatter_chance, strength, strength * 0.5, rng=rng)(lsts, ghz)
    return scatter


def _television(
    model: Interference, lsts: npt.NDArray[np.float64], ghz: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.complex128]:
    from hera_sim.rfi import DTV

    strength = _inr(model, rng)
    signal = DTV(TELEVISION_GHZ, 0.008, model.television_chance, strength, strength * 0.3, rng=rng)
    television: npt.NDArray[np.complex128] = signal(lsts, ghz)
    return television


def _bursts(
    model: Interference, lsts: npt.NDArray[np.float64], ghz: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.complex128]:
    """Gaussian noise over 2 to 30 channels for 1 to 12 times, as of passing satellites and aircraft; hera_sim has none."""
    found = np.zeros((lsts.size, ghz.size), complex)
    for _ in range(rng.integers(*model.bursts, endpoint=True)):
        times, channels = int(rng.integers(1, 13)), int(rng.integers(2, 31))
        first_time, first = int(rng.integers(0, lsts.size)), int(rng.integers(0, ghz.size - channels))
        block = found[first_time : first_time + times, first : first + channels]
        noise = rng.normal(size=block.shape) + 1j * rng.normal(size=block.shape)
        block += _inr(model, rng) * noise / np.sqrt(2)
    return found
