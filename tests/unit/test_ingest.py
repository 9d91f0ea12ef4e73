"""Density grids into boxes: what arrives is the source over its mean, or one clear refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from bigbox.blockwise import workers
from bigbox.errors import BadInput
from bigbox.ingestion import density, formats, sanity
from bigbox.ingestion.density import ingest_density
from bigbox.ingestion.shards import MEMORY, shard_grid
from bigbox.ingestion.sources import open_source
from bigbox.scheduler.tiling import Tiling, TilingError
from bigbox.store.box import Box
from bigbox.store.geometry import CUBIC_TOLERANCE


def grid(shape: tuple[int, ...] = (40, 33, 36), seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).gamma(0.5, 3e9, shape).astype(np.float32)


def expected(rho: NDArray) -> NDArray[np.float32]:
    """The slow reference: all in memory."""
    return (rho.astype(np.float64) / rho.mean(dtype=np.float64)).astype(np.float32)


def make(kind: str, folder: Path, rho: NDArray) -> str:
    path = folder / f"rho.{kind.split('-')[0]}"
    if kind.startswith("npy"):
        np.save(path, np.asfortranarray(rho) if kind == "npy-fortran" else rho)
    elif kind.startswith("hdf5"):
        with h5py.File(path, "w") as file:
            file.create_dataset("fields/dm", data=rho, chunks=True, compression="gzip")
            file.create_dataset("k", data=np.arange(5.0))
            if kind == "hdf5-named":
                file.create_dataset("fields/gas", data=2 * rho)
                return f"{path}:/fields/dm"
    else:
        if kind == "zarr-group":
            group = zarr.create_group(path)
            group.create_array("dm", data=rho, chunks=(16, 16, 16))
            group.create_array("x", data=np.arange(5.0))
        else:
            zarr.create_array(path, data=rho, chunks=(16, 16, 16))
    return str(path)


KINDS = ("npy", "npy-fortran", "hdf5", "hdf5-named", "zarr", "zarr-group")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_box(kind: str, tmp_path: Path) -> None:
    rho = grid()
    done = ingest_density(
        make(kind, tmp_path, rho), tmp_path / "b.zarr", box_size=(4.0, 3.3, 3.6), redshift=0.5,
        cosmology={"omega_m": 0.3},
    )  # fmt: skip
    box = Box.open(tmp_path / "b.zarr")
    dm = np.asarray(box.require("dm")[:])
    np.testing.assert_array_max_ulp(dm, expected(rho), maxulp=1)
    assert abs(dm.mean(dtype=float) - 1) < 1e-6
    assert (box.shape, box.box_size, box.redshift) == (rho.shape, (4.0, 3.3, 3.6), 0.5)
    assert done.notes == ()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "u1", "i8"])
def test_every_dtype(dtype: str, tmp_path: Path) -> None:
    rho = np.random.default_rng(1).integers(0, 100, (32, 32, 32)).astype(dtype)
    np.save(tmp_path / "rho.npy", rho)
    ingest_density(str(tmp_path / "rho.npy"), tmp_path / "b.zarr", box_size=(1.0,))
    dm = np.asarray(Box.open(tmp_path / "b.zarr").array("dm")[:])
    np.testing.assert_array_max_ulp(dm, expected(rho), maxulp=1)


def test_blocks_and_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four blocks (shards of 256 voxels), one worker or several: the same bytes."""
    rho = grid((260, 20, 262))
    np.save(tmp_path / "rho.npy", rho)
    size = (26.0, 2.0, 26.2)
    ingest_density(str(tmp_path / "rho.npy"), tmp_path / "a.zarr", box_size=size)
    monkeypatch.setattr(density, "workers", lambda *_: 5)
    ingest_density(str(tmp_path / "rho.npy"), tmp_path / "b.zarr", box_size=size)
    a, b = (np.asarray(Box.open(tmp_path / f"{n}.zarr").array("dm")[:]) for n in "ab")
    assert a.tobytes() == b.tobytes()
    np.testing.assert_array_max_ulp(a, expected(rho), maxulp=1)


def test_camels_file_needs_an_index(tmp_path: Path) -> None:
    rho = grid((3, 32, 32, 32))
    np.save(tmp_path / "Grids.npy", rho)
    with pytest.raises(BadInput, match=r"3 grids of 32x32x32 voxels: choose one with --index 0..2"):
        ingest_density(str(tmp_path / "Grids.npy"), tmp_path / "b.zarr", box_size=(25.0,))
    with pytest.raises(BadInput, match=r"--index 3 is outside 0..2"):
        ingest_density(str(tmp_path / "Grids.npy"), tmp_path / "b.zarr", box_size=(25.0,), index=3)
    ingest_density(str(tmp_path / "Grids.npy"), tmp_path / "b.zarr", box_size=(25.0,), index=2)
    dm = np.asarray(Box.open(tmp_path / "b.zarr").array("dm")[:])
    np.testing.assert_array_max_ulp(dm, expected(rho[2]), maxulp=1)


def test_quickstart_grid_is_a_real_box_with_its_provenance(tmp_path: Path) -> None:
    done = ingest_density("quickstart", tmp_path / "q.zarr")
    assert (done.shape, done.box_size, done.redshift) == ((128,) * 3, (12.5,) * 3, 0.0)
    assert abs(done.mean - 1) < 1e-4 and done.largest > 1000
    source = open_source("quickstart")
    assert source.path.stat().st_size < 4_500_000
    assert {"code", "initial_conditions", "rounding", "omega_m"} <= set(source.attributes)
    assert Box.open(tmp_path / "q.zarr").attributes["cosmology"]["omega_m"] == 0.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.25, -7.0])
def test_the_first_bad_voxel_is_named(kind: str, value: float, tmp_path: Path) -> None:
    rho = grid((34, 36, 260))  # two blocks on z; the first voxel in C order is in the second
    rho[33, 0, 0] = rho[5, 30, 258] = rho[5, 31, 1] = value
    with pytest.raises(BadInput, match=rf"voxel \(5, 30, 258\) has density {value:g}, which is"):
        ingest_density(make(kind, tmp_path, rho), tmp_path / "b.zarr", box_size=(3.4, 3.6, 26.0))
    assert not (tmp_path / "b.zarr").exists() and not list(tmp_path.glob(".*"))


def test_an_overdensity_is_recognised(tmp_path: Path) -> None:
    np.save(tmp_path / "delta.npy", expected(grid((32, 32, 32))) - 1)
    with pytest.raises(BadInput, match=r"if this is delta, give 1 \+ delta"):
        ingest_density(str(tmp_path / "delta.npy"), tmp_path / "b.zarr", box_size=(1.0,))


def refused(tmp_path: Path, match: str, rho: NDArray, **options: object) -> None:
    np.save(tmp_path / "rho.npy", rho)
    with pytest.raises(BadInput, match=match) as caught:
        ingest_density(str(tmp_path / "rho.npy"), tmp_path / "b.zarr", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rho.npy"]


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    rho = grid((32, 32, 32))
    refused(tmp_path, "give --box-size in Mpc/h", rho)
    refused(tmp_path, "must be positive", rho, box_size=(0.0,))
    refused(tmp_path, "one number or three", rho, box_size=(1.0, 2.0))
    refused(tmp_path, "not cubic; cubic would be, .* 25 25 25", rho, box_size=(25.0, 25.0, 20.0))
    refused(tmp_path, "not cubic", grid((32, 32, 64)), box_size=(25.0,))
    refused(tmp_path, r"redshift -1.0", rho, box_size=(1.0,), redshift=-1.0)
    refused(tmp_path, r"omega_m 0.0", rho, box_size=(1.0,), cosmology={"omega_m": 0.0})
    refused(tmp_path, r"has shape \(32, 32\)", rho[0], box_size=(1.0,))
    refused(tmp_path, "leave out --index", rho, box_size=(1.0,), index=1)
    refused(tmp_path, "every voxel has density 0", 0 * rho, box_size=(1.0,))
    refused(tmp_path, "holds complex128", rho.astype(complex), box_size=(1.0,))
    refused(tmp_path, "overflows", np.full((32, 32, 32), 1e307), box_size=(1.0,))


@pytest.mark.parametrize(
    ("shape", "advice"),
    [((24, 32, 24), "(--tile 16)"), ((24,) * 3, "(--tile 16)"), ((32,) * 3, "(--tile 20)"),
     ((33, 48, 33), "(--tile "), ((8,) * 3, ""), ((9, 40, 40), "")],
)  # fmt: skip
def test_a_small_box_is_warned_of(shape: tuple[int, int, int], advice: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rho.npy", grid(shape))
    sides = tuple(float(n) for n in shape)
    (warning,) = ingest_density(
        str(tmp_path / "rho.npy"), tmp_path / "b.zarr", box_size=sides
    ).warnings
    assert advice in warning and warning.endswith("ingest a finer grid")
    assert ("--tile" in warning) == bool(advice)
    if advice:
        Tiling(shape, int(warning.split("--tile ")[1].split(")")[0]))


@pytest.mark.parametrize("n", range(1, 80))
def test_a_tile_is_advised_exactly_where_one_can_be_laid(n: int) -> None:
    def can_be_laid(tile: int) -> bool:
        try:
            return Tiling((n,) * 3, tile).size > 0
        except TilingError:
            return False

    possible = [tile for tile in range(2, 33) if can_be_laid(tile)]
    assert sanity.tile_for((n,) * 3) in (possible or [0])


def with_box_size(folder: Path, **attributes: object) -> str:
    path = Path(make("hdf5", folder, grid((40, 40, 40))))
    with h5py.File(path, "r+") as file:
        file["fields/dm"].attrs.update(attributes)
    return str(path)


@pytest.mark.parametrize("units", ["Mpc/h", "cMpc/h", "comoving Mpc/h", "Mpc/h, comoving"])
def test_the_box_size_of_the_source(units: str, tmp_path: Path) -> None:
    source = with_box_size(tmp_path, box_size=25.0, box_size_units=units)
    done = ingest_density(source, tmp_path / "b.zarr")
    assert (done.box_size, done.notes) == ((25.0,) * 3, ())


@pytest.mark.parametrize("units", ["kpc/h", "Mpc", "Mpc/h, physical", ""])
def test_a_box_size_in_another_unit_is_refused(units: str, tmp_path: Path) -> None:
    source = with_box_size(tmp_path, box_size=25000.0, box_size_units=units)
    with pytest.raises(BadInput, match=f"25000.0 is in '{units}', .* give --box-size in Mpc/h"):
        ingest_density(source, tmp_path / "b.zarr")
    assert ingest_density(source, tmp_path / "b.zarr", box_size=(25.0,)).box_size == (25.0,) * 3


def test_a_box_size_without_a_unit_is_told(tmp_path: Path) -> None:
    (note,) = ingest_density(with_box_size(tmp_path, box_size=25.0), tmp_path / "b.zarr").notes
    assert note.startswith("box size 25 x 25 x 25 is taken from")


def test_voxels_as_cubic_as_a_box_asks(tmp_path: Path) -> None:
    np.save(tmp_path / "rho.npy", grid((40, 40, 40)))
    almost = 1 + 0.9 * CUBIC_TOLERANCE
    ingest_density(
        str(tmp_path / "rho.npy"), tmp_path / "b.zarr", box_size=(4.0, 4.0, 4.0 * almost)
    )
    Box.open(tmp_path / "b.zarr")
    with pytest.raises(BadInput, match="not cubic"):
        ingest_density(str(tmp_path / "rho.npy"), tmp_path / "c.zarr", box_size=(4.0, 4.0, 4.001))


SLOW_INGEST = """
import sys, time
from bigbox.cli import main
from bigbox.ingestion import density
copy = density._copy
def slow(*given):
    print("at work", flush=True)
    time.sleep(float(sys.argv[3]))
    copy(*given)
density._copy = slow
sys.exit(main(["ingest", *sys.argv[1:3], "--box-size", "4"]))
"""


def test_a_stopped_ingest_leaves_nothing_and_a_killed_ones_rest_is_removed(tmp_path: Path) -> None:
    np.save(tmp_path / "rho.npy", grid((40, 40, 40)))
    place = tmp_path / "b.zarr"

    def begin(seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SLOW_INGEST, str(tmp_path / "rho.npy"), str(place)]
        process = subprocess.Popen(
            [*command, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "at work\n"
        return process

    stopped = begin(0.5)
    stopped.terminate()
    _, said = stopped.communicate()
    assert stopped.returncode == 75 and "stopped by SIGTERM" in said and said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["rho.npy"]

    killed = begin(60)
    killed.kill()
    killed.communicate()
    (left,) = tmp_path.glob(".*")
    elsewhere = left.with_name(".b.zarr.ingest-another.machine-1")
    alive = left.with_name(left.name.replace(str(killed.pid), str(os.getpid())))
    other = left.with_name(left.name.replace("b.zarr", "bb.zarr"))
    for folder in (elsewhere, alive, other):
        folder.mkdir()

    again = begin(0)
    _, said = again.communicate()
    assert again.returncode == 0 and f"{left}: removed" in said
    assert f"{elsewhere}: of an ingest on another.machine" in said
    assert set(tmp_path.glob(".*")) == {elsewhere, alive, other}
    assert Box.open(place).has("dm")


def test_an_existing_box_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "rho.npy", grid((32, 32, 32)))
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        ingest_density(str(tmp_path / "rho.npy"), tmp_path / "b.zarr", box_size=(1.0,))
    with pytest.raises(BadInput, match="there is no folder"):
        ingest_density(str(tmp_path / "rho.npy"), tmp_path / "no" / "b.zarr", box_size=(1.0,))


@pytest.mark.parametrize("kind", ["npy", "hdf5"])
@pytest.mark.parametrize("left", [0.9, 0.5, 0.01])
def test_truncated_files_are_one_line(kind: str, left: float, tmp_path: Path) -> None:
    source = make(kind, tmp_path, grid())
    data = Path(source).read_bytes()
    Path(source).write_bytes(data[: int(left * len(data))])
    with pytest.raises(BadInput, match="truncated or damaged") as caught:
        ingest_density(source, tmp_path / "b.zarr", box_size=(4.0, 3.3, 3.6))
    assert source in str(caught.value) and "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [Path(source).name]


def test_a_damaged_zarr_chunk_is_one_line(tmp_path: Path) -> None:
    source = Path(make("zarr", tmp_path, grid()))
    chunk = sorted(p for p in source.rglob("c/*/*/*") if p.is_file())[3]
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(BadInput, match="truncated or damaged"):
        ingest_density(str(source), tmp_path / "b.zarr", box_size=(4.0, 3.3, 3.6))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("no.npy", "no such file"),
        ("rho.npy:/dm", "one array only"),
        ("rho.txt", "must be a .npy file"),
        ("many.hdf5", "name the data set, .* are: a, b"),
        ("many.hdf5:/c", "no data set of this name"),
        ("many.hdf5:/g", "cannot be read|no data set"),
        ("empty.zarr", "cannot be read"),
    ],
)
def test_sources_that_cannot_be_found(name: str, match: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rho.npy", grid((32, 32, 32)))
    (tmp_path / "rho.txt").write_text("0")
    (tmp_path / "empty.zarr").mkdir()
    with h5py.File(tmp_path / "many.hdf5", "w") as file:
        file["a"] = file["b"] = grid((32, 32, 32))
        file.create_group("g")
    with pytest.raises(BadInput, match=match) as caught:
        open_source(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_format_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named where it is asked; what a row of bigbox recognises does not import it."""
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{formats.GROUP}]\nbroken = no_such_module:ROW\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert open_source(make("npy", tmp_path, grid())).shape == (40, 33, 36)
    with pytest.raises(BadInput, match="broken: no_such_module:ROW .* cannot be imported"):
        open_source(make("zarr", tmp_path, grid()))


def test_the_memory_of_the_blocks_is_bounded() -> None:
    """Blocks of 256^3 in float64: two fit into 1 GiB, and one is always allowed."""
    wide = replace(
        open_source("quickstart"), shape=(4096,) * 3, dtype=np.dtype("f8"), chunk_bytes=0
    )
    each = density._block_bytes(wide, shard_grid(wide.shape))
    assert each == 256**3 * (8 + 12)
    assert workers(each, MEMORY) * each <= MEMORY
    assert workers(each, 1) == 1
