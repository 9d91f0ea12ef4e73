"""Halo catalogues of any code: the same haloes give the same box, with a snapshot or alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from bigbox.cli import main
from bigbox.errors import BadInput
from bigbox.ingest import text_table
from bigbox.ingest.columns import plain
from bigbox.ingest.headers import Told
from bigbox.ingest.particles import ingest_haloes, ingest_snapshot
from bigbox.ingest.sources import open_catalogue
from bigbox.store.box import Box
from tests import catalogues, snapshots
from tests.snapshots import BOX, H

COUNT = 40
GRID = 24
FEW = snapshots.clustered(4000)
PLACES, MASSES = snapshots.haloes(COUNT, FEW)
HOSTS = np.where(np.arange(COUNT) % 4 == 3, 1.0, -1.0)  # every fourth is in halo 1
OF_AHF = np.maximum(HOSTS, 0)  # 0 for none
HERE = Told(box_size=BOX, redshift=0.0)


def csv(path: Path, *, names: str = "x,y,z,mass,pid", comment: str = "") -> Path:
    data = np.column_stack([PLACES, MASSES, HOSTS])
    np.savetxt(path, data, delimiter=",", header=names, comments=comment, fmt="%.9g")
    return path


def npz(path: Path) -> Path:
    velocities = np.zeros((COUNT, 3), np.float32)
    np.savez(path, positions=PLACES, mass=MASSES, velocities=velocities, pid=HOSTS, box_size=BOX)
    return path


def uchuu(path: Path) -> Path:
    """A data set for each column at the root, as Uchuu's halolist_z0p00_0.h5 (uchuutools)."""
    with h5py.File(path, "w") as file:
        columns = {"id": np.arange(COUNT), "Mvir": MASSES, "pid": HOSTS, "rvir": MASSES}
        for name, values in {**columns, **dict(zip("xyz", PLACES.T, strict=True))}.items():
            file[name] = values
    return path


def in_group(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("haloes")
        group.attrs.update({"box_size": BOX, "redshift": 0.0, "Omega_m": 0.3})
        group["pos"] = PLACES * 1e3
        group["pos"].attrs["units"] = "ckpc/h"
        group["M200c"] = MASSES
        group["M200c"].attrs["units"] = b"Msun/h"
        group["pid"] = HOSTS
        file["other"] = np.arange(3)
    return path


def compound(path: Path) -> Path:
    names = ["halo_x", "halo_y", "halo_z", "halo_mvir", "halo_pid"]  # as halotools has them
    table = np.zeros(COUNT, [(name, "f8") for name in names])
    for name, values in zip(names, (*PLACES.T, MASSES, HOSTS), strict=True):
        table[name] = values
    with h5py.File(path, "w") as file:
        file["data"] = table
    return path


def fits(path: Path) -> Path:
    table = pytest.importorskip("astropy.table").Table
    made = table({"POSITION": PLACES, "MASS": MASSES, "PID": HOSTS})
    made["POSITION"].unit, made["MASS"].unit = "Mpc/h", "Msun/h"
    made.meta.update({"BOXSIZE": BOX, "REDSHIFT": 0.0})
    made.write(path)
    return path


LAYOUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "rockstar": ("out_33_pids.list", lambda p: catalogues.rockstar(p, PLACES, MASSES, HOSTS)),
    "hlist": ("hlist_1.00000.list", lambda p: catalogues.hlist(p, PLACES, MASSES, HOSTS)),
    "ahf": ("run.z0.000.AHF_halos", lambda p: catalogues.ahf(p, PLACES, MASSES, OF_AHF)),
    "ahf, older": ("run.0000.z0.000.AHF_halos", lambda p: catalogues.ahf(p, PLACES, MASSES, HOSTS)),
    "csv": ("haloes.csv", csv),
    "csv, units": ("haloes.csv", lambda p: csv(p, names="X [Mpc/h],Y [Mpc/h],Z [Mpc/h],M,pid")),
    "csv, commented": ("haloes.csv", lambda p: csv(p, comment="# ")),
    "npz": ("haloes.npz", npz),
    "uchuu": ("halolist_z0p00_0.h5", uchuu),
    "hdf5": ("haloes.hdf5", in_group),
    "compound": ("haloes.hdf5", compound),
    "fits": ("haloes.fits", fits),
}  # fmt: skip


def halo(folder: Path, paths: list[Path], **options: Any) -> NDArray[np.float32]:
    shutil.rmtree(folder / "b.zarr", ignore_errors=True)
    ingest_haloes(paths, folder / "b.zarr", grid=GRID, **options)
    return np.asarray(Box.open(folder / "b.zarr").require("halo")[:])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float32]]:
    """The halo arrays of all haloes and of those in no other one, through a SUBFIND catalogue."""
    folder, made = tmp_path_factory.mktemp("subfind"), {}
    for kind, some in (("group", HOSTS == -1), ("subhalo", HOSTS < 9)):
        paths = snapshots.catalogue(folder / kind, PLACES[some], MASSES[some])
        made[kind] = halo(folder, paths)
    return made


@pytest.mark.parametrize("kind", ["group", "subhalo"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_haloes(
    name: str, kind: Any, expected: dict[str, NDArray[np.float32]], tmp_path: Path
) -> None:
    file, make = LAYOUTS[name]
    got = halo(tmp_path, [make(tmp_path / file)], halo_type=kind, told=HERE)
    want = expected[kind]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * want.max())
    assert got.sum() == pytest.approx(want.sum(), rel=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_beside_a_snapshot(name: str, tmp_path: Path) -> None:
    """Box size and redshift that the catalogue does not tell are those of the snapshot."""
    file, make = LAYOUTS[name]
    source = snapshots.gadget(tmp_path, FEW)
    catalogue = make(tmp_path / file)
    done = ingest_snapshot(source, tmp_path / "b.zarr", grid=GRID, haloes=[catalogue])
    (said,) = [note for note in done.notes if "left out" in note]
    assert f"{COUNT // 4} of {COUNT} are left out" in said
    for channel in done.halo:
        assert channel.mass_in_array == pytest.approx(channel.mass, rel=1e-6)
    kept = MASSES[(HOSTS == -1) & (MASSES >= 3e10)]
    assert sum(channel.mass for channel in done.halo) == pytest.approx(kept.sum(), rel=1e-5)


def test_what_heads_tell(tmp_path: Path) -> None:
    path = catalogues.rockstar(tmp_path / "out_3.list", PLACES, MASSES, redshift=1.5)
    header = open_catalogue([path]).header
    assert (header.box_size, header.redshift) == (BOX, pytest.approx(1.5, abs=1e-5))
    assert header.cosmology == {"omega_m": 0.3, "omega_lambda": 0.7, "h": H}
    path = catalogues.hlist(tmp_path / "hlist_0.40000.list", PLACES, MASSES, HOSTS, redshift=1.5)
    header = open_catalogue([path]).header
    assert (header.box_size, header.redshift) == (BOX, pytest.approx(1.5))
    assert header.cosmology == {"omega_m": 0.3, "omega_lambda": 0.7, "h": H}
    path = catalogues.pinocchio(tmp_path / "p.out", PLACES, MASSES, redshift=0.5)
    assert open_catalogue([path], told=Told(box_size=BOX)).header.redshift == 0.5
    path = npz(tmp_path / "a.npz")
    assert open_catalogue([path], told=Told(redshift=2.0)).header.box_size == BOX


def test_pinocchio(expected: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    """Several files; places have two decimals; without /h the units must be told."""
    half, told = COUNT // 2, Told(box_size=BOX)
    name = "pinocchio.0.0000.run.catalog.out"
    paths = [
        catalogues.pinocchio(tmp_path / f"{name}.0", PLACES[:half], MASSES[:half]),
        catalogues.pinocchio(tmp_path / f"{name}.1", PLACES[half:], MASSES[half:]),
    ]
    got, want = halo(tmp_path, paths, told=told), expected["subhalo"]
    np.testing.assert_allclose(got, want, atol=0.05 * want.max())
    assert got.sum() == pytest.approx(want.sum(), rel=1e-5)
    free = catalogues.pinocchio(tmp_path / name, PLACES / H, MASSES / H, h="")
    with pytest.raises(BadInput, match="Mpc and M_sun, without h .OutputInH100.: give h as --halo"):
        open_catalogue([free], told=told)
    np.testing.assert_allclose(
        halo(tmp_path, [free], told=Told(box_size=BOX, length=H, mass=H)),
        want,
        atol=0.05 * want.max(),
    )
    free.write_bytes(bytes(100))
    with pytest.raises(BadInput, match="is no PINOCCHIO catalogue in text; set CatalogInAscii"):
        open_catalogue([free], told=told)


def test_chunks_of_a_compound_table_that_are_not_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Half of its chunks were never written: no haloes of mass zero in their place."""
    whole, path = compound(tmp_path / "whole.hdf5"), tmp_path / "half.hdf5"
    with h5py.File(whole) as source, h5py.File(path, "w") as file:
        rows = source["data"][:]
        table = file.create_dataset("data", (COUNT,), rows.dtype, chunks=(COUNT // 4,))
        table[: COUNT // 2] = rows[: COUNT // 2]
    given = ["ingest", "--halos", str(path), str(tmp_path / "b.zarr"), "--grid", "24"]
    assert main([*given, "--box-size", str(BOX), "--redshift", "0"]) == 2
    text = capfd.readouterr().err
    assert "half.hdf5:/data" in text and text.count("\n") == 1, text
    assert not (tmp_path / "b.zarr").exists()


def test_files_of_a_catalogue_have_all_its_columns(tmp_path: Path) -> None:
    one, other = npz(tmp_path / "a0.npz"), tmp_path / "a1.npz"
    np.savez(other, positions=PLACES, mass=MASSES, box_size=BOX)
    with pytest.raises(BadInput, match=r"a1\.npz: has no column pid"):
        open_catalogue([one, other])


def test_a_fits_table_that_is_cut(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = fits(tmp_path / "a.fits")
    path.write_bytes(path.read_bytes()[:6000])
    given = ["ingest", "--halos", str(path), str(tmp_path / "b.zarr"), "--grid", "8"]
    assert main(given) == 2
    text = capfd.readouterr().err
    assert "File may have been truncated" in text and text.count("\n") == 1, text


def test_a_list_without_parents_is_said(tmp_path: Path) -> None:
    path = catalogues.rockstar(tmp_path / "out_3.list", PLACES, MASSES)
    done = ingest_haloes([path], tmp_path / "b.zarr", grid=GRID)
    assert "tells no PID: subhaloes count beside their hosts" in done.notes[-1]


def test_the_ranks_of_rockstar(expected: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    half = COUNT // 2
    paths = [
        catalogues.halos_ascii(tmp_path / "halos_3.0.ascii", PLACES[:half], MASSES[:half]),
        catalogues.halos_ascii(tmp_path / "halos_3.1.ascii", PLACES[half:], MASSES[half:]),
    ]
    got, want = halo(tmp_path, paths[::-1]), expected["subhalo"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * want.max())
    other = catalogues.rockstar(tmp_path / "out_2.list", PLACES, MASSES, redshift=1.0)
    with pytest.raises(BadInput, match="redshift 1 is another .0. than in halos_3.0.ascii"):
        open_catalogue([*paths, other])


def test_each_file_is_read_by_its_own_columns(tmp_path: Path) -> None:
    """A later file of another version has its columns elsewhere, or others."""
    half, none = COUNT // 2, np.zeros(COUNT)
    first = catalogues.halos_ascii(tmp_path / "halos_3.0.ascii", PLACES[:half], MASSES[:half])
    whole = catalogues.halos_ascii(tmp_path / "halos_4.0.ascii", PLACES, MASSES)
    head = "".join(line for line in open(first) if line.startswith("#"))
    other = head.replace("x y z vx vy vz", "vx vy vz x y z")
    columns = [none + 100, MASSES, *[none] * 5, *[none] * 3, *PLACES.T, *[none] * 6]
    rows = np.column_stack([np.arange(COUNT), *columns])[half:]
    path = tmp_path / "halos_3.1.ascii"
    np.savetxt(path, rows, fmt="%.8g", header=other.rstrip(), comments="")
    assert np.array_equal(halo(tmp_path, [first, path]), halo(tmp_path, [whole]))
    path.write_text(path.read_text().replace(" mvir ", " m_200c ").replace(" mbound_vir ", " m2 "))
    with pytest.raises(BadInput, match="would be read from its columns x, y, z, m_200c, and halos"):
        open_catalogue([first, path])


def test_each_file_of_pinocchio_has_its_units(tmp_path: Path) -> None:
    paths = [tmp_path / f"pinocchio.0.catalog.out.{n}" for n in (0, 1)]
    for h in ("/h", ""):
        catalogues.pinocchio(paths[0], PLACES, MASSES, h=h)
        catalogues.pinocchio(paths[1], PLACES, MASSES, h="" if h else "/h")
        with pytest.raises(BadInput, match="units are Mpc and M_sun, without h.*other than in"):
            open_catalogue(paths)


def test_rows_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_table, "STEP", 7)
    path = tmp_path / "a.txt"
    rows = np.random.default_rng(0).uniform(0, 1, (50, 3))
    lines = [" ".join(f"{v:.17g}" for v in row) for row in rows]
    lines[20:20] = ["# a comment", ""]
    path.write_text("# what = 3.5; why: 2\n# a b c\n" + "\n".join(lines))
    table = text_table.TextTable.open(path)
    assert (table.rows, table.columns, table.names()) == (50, 3, ["a", "b", "c"])
    assert table.told() == {"what": 3.5, "why": 2.0}
    for start, stop in ((0, 50), (6, 8), (19, 22), (7, 14), (49, 50), (13, 49)):
        np.testing.assert_array_equal(table.read(start, stop, (2, 0)), rows[start:stop, [2, 0]])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def damage(path: Path) -> None:
    path.write_text(path.read_text().replace("0.671100", "0.671100", 1) + "1,2,three,4,5\n")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda p: cut(csv(p / "a.csv")) or p / "a.csv", "its last row has . of 5 columns: the fi"),
        (lambda p: csv(p / "a.csv", names="x,y,z,size,pid"), "no column of masses .*are x,"),
        (lambda p: csv(p / "a.csv", names="a,b,c,mass,pid"), "no column of places .x, y, z"),
        (lambda p: csv(p / "a.csv", names="x,y"), "has no line of names for its 5 columns"),
        (lambda p: damage(csv(p / "a.csv")) or p / "a.csv", "rows 1 to 41: cannot be read"),
        (lambda p: [(p / "a.csv").write_text("x,y,z,mass\n"), p / "a.csv"][1], "has no row of num"),
        (lambda p: cut(npz(p / "a.npz")) or p / "a.npz", "a.npz: cannot be read"),
    ],
)  # fmt: skip
def test_bad_tables(make: Callable[[Path], Path], match: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(BadInput, match=match) as caught:
        ingest_haloes([path], tmp_path / "b.zarr", grid=GRID, told=HERE)
    assert "\n" not in str(caught.value) and not (tmp_path / "b.zarr").exists()


def test_what_is_no_catalogue(tmp_path: Path) -> None:
    (snapshot,) = snapshots.gadget(tmp_path, FEW)
    with pytest.raises(BadInput, match="has no Header with counts of groups: no halo catalogue"):
        open_catalogue([snapshot])
    path = uchuu(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["x"]
        file["x"] = PLACES[1:, 0]
    with pytest.raises(BadInput, match=r"column x has shape \(39,\), where Mvir has 40 haloes"):
        open_catalogue([path], told=HERE)
    with h5py.File(path, "r+") as file:
        del file["x"]
    with pytest.raises(BadInput, match="0 of its groups have columns of places and masses"):
        open_catalogue([path], told=HERE)
    path = in_group(tmp_path / "b.h5")
    with h5py.File(path, "r+") as file:
        file["haloes/pos"].attrs["units"] = "Mpc"
    with pytest.raises(BadInput, match="column pos is in 'Mpc'; known are mpc/h, kpc/h"):
        open_catalogue([path])
    path = in_group(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        del file["haloes/M200c"]
        file.create_dataset("haloes/M200c", (COUNT,), "f4")
    with pytest.raises(BadInput, match="M200c: its values were never written"):
        ingest_haloes([path], tmp_path / "b.zarr", grid=GRID)


def test_places_in_another_unit_or_from_the_middle(tmp_path: Path) -> None:
    for factor, shift, match in (
        (1e3, 0, "times its side: are they, or the box size, in another unit? give it"),
        (1, -BOX / 2, "are positions counted from the middle of the box? add half of its side"),
    ):
        path = catalogues.rockstar(tmp_path / "out_1.list", factor * PLACES + shift, MASSES)
        with pytest.raises(BadInput, match=match.replace("?", r"\?")):
            ingest_haloes([path], tmp_path / "b.zarr", grid=GRID)


def test_files_of_no_known_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "halos_0.0.bin").write_bytes(bytes(range(256)))
    with pytest.raises(BadInput, match="is no halo catalogue that bigbox knows .Rockstar's binary"):
        open_catalogue([tmp_path / "halos_0.0.bin"])
    path = catalogues.rockstar(tmp_path / "out_1.list", PLACES, MASSES)
    assert main(["ingest", str(path), str(tmp_path / "b.zarr")]) == 2
    assert "is a halo catalogue: give it with --halos CATALOGUE" in capsys.readouterr().err


def test_what_lacks_is_told_by_options(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv")
    with pytest.raises(BadInput, match="tells no box size .*give --box-size in Mpc/h"):
        open_catalogue([path])
    with pytest.raises(BadInput, match="tells no redshift .*; give --redshift Z"):
        open_catalogue([path], told=Told(box_size=BOX))
    path = catalogues.rockstar(tmp_path / "out_0.list", PLACES, MASSES, box=0.0)
    with pytest.raises(BadInput, match="tells no box size .#Box size: L Mpc/h.; if it has one"):
        open_catalogue([path])
    with pytest.raises(BadInput, match="give --grid, .* voxels of 0.098 Mpc/h .--grid 41."):
        ingest_haloes([path], tmp_path / "b.zarr", told=HERE)


def test_names_of_columns() -> None:
    names = ("x [Mpc/h]", "mvir(10)", "halo_x", "A[x](500c)", "Mvir_all", " Xc(6)")
    assert [plain(name) for name in names] == ["x", "mvir", "x", "a", "mvir_all", "xc"]


@pytest.mark.slow
def test_a_box_of_haloes_alone_is_painted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line, BOX behind the catalogue or before it; then plan, paint, look at it."""
    path = catalogues.rockstar(tmp_path / "out_33.list", PLACES, MASSES)
    box = str(tmp_path / "b.zarr")
    assert main(["ingest", "--halos", str(path), box, "--grid", "72", "--hi-halo"]) == 0
    assert (
        "halo: 3e+10 to 1e+11 M_sun/h" in (said := capsys.readouterr().out) and "tb: mean" in said
    )
    shutil.rmtree(box)
    assert main(["ingest", box, "--halos", str(path), "--grid", "72"]) == 0
    for command in (
        ["plan", box, "--force"], ["paint", box, "--quiet", "--steps", "2", "--force"],
        ["status", box], ["verify", box], ["plot", box], ["export", box, "--to", "npy"],
    ):  # fmt: skip
        assert main(command) == 0, command
    assert np.isfinite(np.load(tmp_path / "b_tb.npy")).all()

    def fails(match: str, *arguments: str) -> None:
        assert main(["ingest", *arguments]) == 2
        text = capsys.readouterr().err
        assert match in text and text.count("\n") == 1, text

    other = str(tmp_path / "c.zarr")
    capsys.readouterr()
    fails("--gas needs a SOURCE", "--halos", str(path), other, "--gas")
    fails("--index needs a SOURCE", other, "--halos", str(path), "--index", "1")
    fails("name SOURCE and BOX, or --halos CATALOGUE and BOX", other)
    fails("name SOURCE and BOX, or --halos CATALOGUE and BOX", "--halos", str(path))
    assert main(["paint", str(tmp_path / "b.zarr"), "--painter", "gaussian", "--discard"]) == 2
    assert "has no 'dm'" in capsys.readouterr().err
