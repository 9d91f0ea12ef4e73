"""How often `bigbox validate` is right: truths against their own draws, and planted faults.

    python -m tests.benchmarks.verdicts TRUTH.zarr --seeds 100
    python -m tests.benchmarks.verdicts --synthetic 25 --seeds 100

A truth is a box whose T_b was made by the HI-halo relation (bigbox ingest --halos .. --hi-halo);
--synthetic makes one of random haloes, with that many Mpc/h on a side. A box is a further draw of
it, with a fault or without. Every box is judged beside draws that no other one was judged beside.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.analysis.report.validate import Beside, validate
from bigbox.ingestion.draws import catalogue_of, drawn
from bigbox.ingestion.headers import Told
from bigbox.ingestion.particles import ingest_haloes
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from tests.catalogues import rockstar
from tests.fields import plant

DRAWS = 24
PER_VOLUME = 0.11  # haloes above 3e10 M_sun/h in a (Mpc/h)^3, as in the small N-body boxes
Values = np.ndarray
FAULTS: dict[str, Callable[[Values], Values]] = {
    "none": lambda tb: tb,
    "power + 10 %": lambda tb: tb * np.float32(1.1**0.5),
    "seams of 5 %": lambda tb: plant(tb, Tiling(tb.shape), "gain", 0.05),
    "a mass bin at half": lambda tb: tb,
}


def synthetic(folder: Path, side: float, voxels: int) -> Path:
    """A truth of haloes at random places, with a mass function of slope -0.9 in ln M."""
    rng = np.random.default_rng(18)
    count = round(PER_VOLUME * side**3)
    masses = 3e10 * (1 - rng.random(count) * (1 - 300**-0.9)) ** (-1 / 0.9)
    halos = rockstar(folder / "out_0.list", side * rng.random((count, 3)), masses, box=side)
    truth = folder / "truth.zarr"
    ingest_haloes([halos], truth, grid=voxels, hi_halo=True, told=Told(side, 0.0))
    return truth


def box_of(truth: Box, place: Path, tb: Values, halved: bool = False) -> Path:
    """A box as if painted: T_b, and the truth's haloes, the second mass bin at half where asked."""
    box = Box.create(place, truth.shape, truth.box_size, truth.redshift)
    box.create_array("tb")[...] = tb
    halo = np.asarray(truth.require("halo")[...])
    if halved:
        halo[1] *= 0.5
    edges: Any = truth.array("halo").attrs["mass_edges"]
    box.create_array("halo", channels=len(halo), attributes={"mass_edges": edges})[...] = halo
    return place


def judged(
    truth: Path, fault: str, seed: int, folder: Path, realizations: int = 1, itself: bool = False
) -> dict[str, Any]:
    """Validate a draw with a fault planted; itself: the truth's own T_b in its place."""
    box = Box.open(truth)
    catalogue = catalogue_of(box)
    paths = []
    with tempfile.TemporaryDirectory(dir=folder) as made:
        for number in range(realizations):
            draw = 1_000_000 + 1000 * seed + number
            tb = np.asarray(box.require("tb")[...]) if itself else drawn(box, catalogue, draw)
            place = Path(made) / f"box{number}.zarr"
            halved = fault == "a mass bin at half"
            paths.append(box_of(box, place, FAULTS[fault](tb), halved))
        beside = Beside(draws=DRAWS, first_draw=1000 * (seed + 1))
        return validate(paths[0], truth=str(truth), realizations=paths[1:], beside=beside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path, nargs="?")
    parser.add_argument("--synthetic", type=float, metavar="MPC/H")
    parser.add_argument("--voxels", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--realizations", type=int, default=1)
    parser.add_argument("--itself", action="store_true", help="the truth's own T_b, once a fault")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        truth = given.truth or synthetic(folder, given.synthetic, given.voxels)
        for fault in given.faults:
            failed: dict[str, int] = {}
            passes = 0
            seeds = 1 if given.itself else given.seeds
            for seed in range(seeds):
                found = judged(truth, fault, seed, folder, given.realizations, given.itself)
                passes += found["pass"]
                for check in found["checks"]:
                    if check["word"] == "fail":
                        failed[check["what"]] = failed.get(check["what"], 0) + 1
            told = "; ".join(f"{what}: {n}" for what, n in failed.items())
            print(f"{fault}: {passes} of {seeds} pass. Failed: {told or 'none'}", flush=True)


if __name__ == "__main__":
    main()
