"""The three lines that users of pandas, xarray, zarr, numpy and torch write, with an `ngas://` URL in them."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pytest

from dlg_ml_tasks.archive import NgasFileSystem, NotInCache
from dlg_ml_tasks.archive.cache import NgasCacheFileSystem
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = pytest.mark.integration


@pytest.fixture
def url(server: EmbeddedNgas, home: str) -> str:
    return f"ngas://{server.host}:{server.port}{home}"


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_pandas_reads_and_writes_csv(url: str, name: str) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"channel": range(1000), "flagged": np.linspace(0, 1, 1000)})
    table.to_csv(f"{url}/{name}", index=False)
    assert pandas.read_csv(f"{url}/{name}").equals(table)


def test_pandas_reads_and_writes_parquet(url: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame({"channel": range(1000), "flagged": np.linspace(0, 1, 1000)})
    table.to_parquet(f"{url}/table.parquet")
    assert pandas.read_parquet(f"{url}/table.parquet", columns=["flagged"]).equals(table[["flagged"]])


def test_a_partitioned_data_set_is_a_tree_of_files(url: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame({"night": ["A", "B"] * 5, "flagged": range(10)})
    table.to_parquet(f"{url}/nights", partition_cols=["night"])
    night_b = pandas.read_parquet(f"{url}/nights", filters=[("night", "=", "B")])
    assert list(night_b["flagged"]) == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_opens_arrays_and_groups(url: str, zarr_format: int) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(f"{url}/data.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("vis", shape=(100, 100), chunks=(50, 50), dtype="f4")[:] = 1.0
    group.attrs["telescope"] = "HERA"
    again = zarr.open_group(f"{url}/data.zarr", mode="r")
    assert again.attrs["telescope"] == "HERA"
    assert again["vis"][40:60, 40:60].sum() == 400.0
    assert zarr.open_array(f"{url}/data.zarr/vis", mode="r").shape == (100, 100)


def test_xarray_writes_and_opens_zarr(url: str) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    data = xarray.Dataset({"vis": (("time", "channel"), np.random.default_rng(0).random((20, 30)))})
    data.to_zarr(f"{url}/data.zarr", consolidated=False)
    with xarray.open_zarr(f"{url}/data.zarr", consolidated=False) as opened:
        assert opened.isel(time=3).equals(data.isel(time=3))


def test_xarray_opens_hdf5_without_downloading_it(url: str) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    data = xarray.Dataset({"vis": (("time", "channel"), np.random.default_rng(0).random((20, 30)))})
    with fsspec.open(f"{url}/data.nc", "wb") as file:
        data.to_netcdf(file, engine="h5netcdf")
    with fsspec.open(f"{url}/data.nc") as file, xarray.open_dataset(file, engine="h5netcdf") as opened:
        assert opened.equals(data)


def test_h5py_reads_a_part_of_a_file(url: str) -> None:
    h5py = pytest.importorskip("h5py")
    with fsspec.open(f"{url}/data.h5", "wb") as file, h5py.File(file, "w") as data:
        data["vis"] = np.arange(10)
    with fsspec.open(f"{url}/data.h5") as file, h5py.File(file) as data:
        assert data["vis"][2:4].tolist() == [2, 3]


def test_numpy_saves_and_loads_arrays(url: str) -> None:
    with fsspec.open(f"{url}/array.npy", "wb") as file:
        np.save(file, np.arange(10))
    with fsspec.open(f"{url}/array.npy") as file:
        assert np.load(file).sum() == 45
    with fsspec.open(f"{url}/arrays.npz", "wb") as file:
        np.savez(file, one=np.ones(3))
    with fsspec.open(f"{url}/arrays.npz") as file, np.load(file) as arrays:
        assert arrays["one"].sum() == 3


def test_torch_saves_and_loads_weights(url: str) -> None:
    torch = pytest.importorskip("torch")
    with fsspec.open(f"{url}/weights.pt", "wb") as file:
        torch.save({"w": torch.ones(3)}, file)
    with fsspec.open(f"{url}/weights.pt") as file:
        assert torch.load(file, weights_only=True)["w"].sum() == 3


# --- through the cache ---


def test_xarray_reads_through_the_cache_and_then_offline(url: str, fs: NgasFileSystem, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    data = xarray.Dataset({"vis": (("time", "channel"), np.random.default_rng(0).random((20, 30)))})
    data.to_zarr(f"{url}/data.zarr", consolidated=False)
    for mode in ("online", "offline"):
        options = {"cache_storage": str(tmp_path / "cache"), "cache_mode": mode}
        with xarray.open_zarr(f"ngascache::{url}/data.zarr", consolidated=False, storage_options=options) as opened:
            assert opened.load().equals(data)


def test_a_chunk_that_is_not_in_the_cache_is_never_filled_with_zeros(
    url: str, fs: NgasFileSystem, home: str, tmp_path: Path
) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.create_array(f"{url}/vis.zarr", shape=(100,), chunks=(50,), dtype="f4", zarr_format=2)[:] = 1.0
    options = {"cache_storage": str(tmp_path / "cache")}
    assert zarr.open_array(f"ngascache::{url}/vis.zarr", mode="r", storage_options=options)[:50].sum() == 50
    offline = zarr.open_array(
        f"ngascache::{url}/vis.zarr", mode="r", storage_options=options | {"cache_mode": "offline"}
    )
    assert offline[:50].sum() == 50
    with pytest.raises(NotInCache, match=rf"{home}/vis\.zarr/1"):
        offline[50:]


def test_local_files_for_libraries_that_want_a_path(url: str, fs: NgasFileSystem, home: str, tmp_path: Path) -> None:
    fs.pipe_file(f"{home}/config.txt", b"content")
    path = fsspec.open_local(f"ngascache::{url}/config.txt", ngascache={"cache_storage": str(tmp_path / "cache")})
    assert Path(path).read_bytes() == b"content"
    NgasCacheFileSystem.clear_instance_cache()
