"""What ingest of a snapshot costs and how exact it is: one table, from real runs on this machine.

    python -m tests.benchmarks.ingest                     every row (10 minutes, 8 GB of disk)
    python -m tests.benchmarks.ingest accuracy            only these
    python -m tests.benchmarks.ingest memory --times 1 2  periodic copies on a side: 128³, 256³

The snapshot is a GADGET-4 run of 128³ particles with its catalogue (--run FOLDER), repeated
periodically into as many files as there are copies, each row in a process of its own whose memory
the operating system limits (RLIMIT_DATA). Nothing here is asserted; the numbers are for reading.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from bigbox.ingestion.particles import ingest_snapshot
from bigbox.ingestion.snapshot import DARK
from bigbox.ingestion.sources import open_catalogue, open_snapshot
from bigbox.store.box import Box
from tests.reference import cic

RUN = Path(__file__).resolve().parents[3] / "shared" / "data" / "gadget4_L12.5_N128"
LIMIT = 1500  # MiB of data (heap and anonymous memory) that a run may have, libraries included


def repeat(run: Path, folder: Path, times: int) -> tuple[Path, Path]:
    """A snapshot and its catalogue, times³ periodic copies, each copy a file."""
    snapshot, groups = open_snapshot([run]), open_catalogue([run])
    side, copies = snapshot.header.box, times**3
    folder.mkdir()
    places = _all(snapshot.files, "PartType1/Coordinates")
    centres, masses = (_all(groups.files, f"Group/{n}") for n in ("GroupPos", "GroupMass"))
    for i, shift in enumerate(itertools.product(range(times), repeat=3)):
        offset = np.array(shift, np.float32) * np.float32(side)
        number = f".{i}" if copies > 1 else ""
        for path, count, sets, name in (
            (
                folder / f"snapshot_000{number}.hdf5",
                len(places),
                {"PartType1/Coordinates": places + offset},
                "NumFilesPerSnapshot",
            ),
            (
                folder / f"fof_subhalo_tab_000{number}.hdf5",
                len(masses),
                {"Group/GroupPos": centres + offset, "Group/GroupMass": masses},
                "NumFiles",
            ),
        ):
            is_snapshot = name == "NumFilesPerSnapshot"
            with h5py.File(path, "w") as file:
                with h5py.File((snapshot if is_snapshot else groups).files[0]) as old:
                    for group in ("Header", "Parameters"):
                        file.create_group(group).attrs.update(dict(old[group].attrs))
                header = file["Header"].attrs
                header["BoxSize"], header[name] = side * times, np.int32(copies)
                if is_snapshot:
                    header["NumPart_ThisFile"] = np.array([0, count, 0, 0, 0, 0], np.uint64)
                    header["NumPart_Total"] = np.array([0, count * copies, 0, 0, 0, 0], np.uint64)
                else:
                    header["Ngroups_ThisFile"] = np.uint64(count)
                    header["Ngroups_Total"] = np.uint64(count * copies)
                for key, values in sets.items():
                    file[key] = values
    return folder, folder


def _all(files: tuple[Path, ...], name: str) -> NDArray[Any]:
    found = []
    for path in files:
        with h5py.File(path) as file:
            found.append(file[name][:])
    return np.concatenate(found)


def worker(given: str) -> None:
    """One ingest in this process; prints its numbers as JSON."""
    options = json.loads(given)
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT << 20, LIMIT << 20))
    run = Path(options["run"])
    began = time.perf_counter()
    done = ingest_snapshot(
        [run], Path(options["box"]), grid=options["grid"], haloes=[run], hi_halo=True
    )
    seconds = time.perf_counter() - began
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(
        json.dumps(
            {
                "particles": done.particles,
                "voxels": done.shape[0],
                "seconds": seconds,
                "peak_MiB": peak / 1024,
                "mean": done.mean,
                "halo_mass_error": max(
                    abs(c.mass_in_array / c.mass - 1) for c in done.halo if c.mass
                ),
                "tb_mean": done.tb_mean,
                "omega_hi": done.omega_hi,
            }
        )
    )


def memory(run: Path, scratch: Path, times: list[int]) -> None:
    """Peak memory and time of boxes of growing size; the periodic copies must be alike."""
    print(f"data limited to {LIMIT} MiB")
    for many in times:
        folder = scratch / f"copies{many}"
        source, _ = repeat(run, folder, many)
        box = scratch / f"copies{many}.zarr"
        options = {"run": str(source), "box": str(box), "grid": 128 * many}
        command = [sys.executable, "-m", "tests.benchmarks.ingest", "--worker", json.dumps(options)]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            print(f"{many}³ copies: failed: {ended.stderr.strip().splitlines()[-1]}")
        else:
            found = json.loads(ended.stdout)
            dm = Box.open(box).array("dm")
            first, last = (np.asarray(dm[(slice(a, a + 128),) * 3]) for a in (0, 128 * (many - 1)))
            print(
                f"{found['particles']:>11} particles in {many**3:>3} files, "
                f"{found['voxels']:>4}³ voxels: {found['seconds']:6.1f} s, "
                f"peak {found['peak_MiB']:.0f} MiB, mean - 1 = {found['mean'] - 1:.1e}, "
                f"halo mass to {found['halo_mass_error']:.1e}, T_b {found['tb_mean']:.5g} mK, "
                f"Omega_HI {found['omega_hi']:.5g}, first and last copy differ by "
                f"{np.abs(first - last).max() / first.max():.1e} of the maximum"
            )
        shutil.rmtree(folder)
        shutil.rmtree(box, ignore_errors=True)


def accuracy(run: Path, scratch: Path, _: list[int]) -> None:
    """dm of the run against a float64 deposit in memory, and against Pylians where it is."""
    done = ingest_snapshot([run], scratch / "accuracy.zarr", grid=128)
    dm = np.asarray(Box.open(done.box).array("dm")[:])
    snapshot = open_snapshot([run])
    places = _all(snapshot.files, "PartType1/Coordinates")
    side = snapshot.header.box
    exact = cic.density_contrast([places], done.shape, side)
    _compare("float64 reference", dm, exact)
    print(f"total of dm over its number of voxels: 1 + {dm.mean(dtype=float) - 1:.1e}")
    try:
        import MAS_library
    except ImportError:
        print("Pylians is not installed (pip install Pylians): no comparison with it")
    else:
        # Its voxel i is centred on i voxel sizes, ours on i + 1/2, and it works in float32: places
        # are rounded to 1/1024 of a voxel and given in voxels, so that it has them exactly.
        n = done.shape[0]
        voxels = np.mod(np.round(places.astype(np.float64) * (n / side) * 1024) / 1024, n)
        exact = cic.density_contrast([voxels], done.shape, float(n))
        theirs = np.zeros(done.shape, np.float32)
        moved = np.mod(voxels - 0.5, n).astype(np.float32)
        MAS_library.MA(moved, theirs, np.float32(n), "CIC", verbose=False)
        folder = scratch / "rounded"
        repeat(run, folder, 1)
        with h5py.File(folder / "snapshot_000.hdf5", "r+") as file:
            del file["PartType1/Coordinates"]
            file["PartType1/Coordinates"] = voxels * (side / n)
        rounded = ingest_snapshot([folder], scratch / "rounded.zarr", grid=n)
        ours = np.asarray(Box.open(rounded.box).array("dm")[:])
        theirs /= theirs.mean(dtype=float)
        _compare("Pylians (float32)", ours, theirs)
        thin = exact < 10  # where its sums of float32 have few terms
        _compare("Pylians, where 1 + delta < 10", ours[thin], theirs[thin])
        _compare("Pylians, where 1 + delta < 10, the float64 reference", exact[thin], theirs[thin])
    print(f"{snapshot.total(DARK)} particles, 1 + delta up to {done.largest:.4g}")


def _compare(name: str, dm: NDArray[np.float32], other: NDArray[Any]) -> None:
    difference = np.abs(dm - other)
    print(
        f"against {name}: at most {(difference / np.maximum(np.abs(other), 1)).max():.1e} of the "
        f"larger of the value and the mean; rms {np.sqrt((difference**2).mean()):.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help="accuracy, memory (default: both)")
    parser.add_argument("--run", type=Path, default=RUN, help="folder of snapshot and catalogue")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    parser.add_argument("--scratch", type=Path, help="where to make the files")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker)
        return
    if not args.run.is_dir():
        parser.error(f"{args.run}: no such folder; give --run, a GADGET-4 run with its catalogue")
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        for row in args.rows or ["accuracy", "memory"]:
            {"accuracy": accuracy, "memory": memory}[row](args.run, Path(scratch), args.times)


if __name__ == "__main__":
    main()
