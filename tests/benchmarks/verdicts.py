"""How often `bigbox validate` is right: truths against their own draws, and planted faults.

    python -m tests.benchmarks.verdicts TRUTH.zarr --seeds 100
    python -m tests.benchmarks.verdicts --synthetic 25 --seeds 100

A truth is a box whose T_b was made by the HI-halo relation (bigbox ingest --halos .. --hi-halo);
--synthetic makes one of random haloes, with that many Mpc/h on a side. A box is a further draw of
it, with a fault or without. Every box is judged beside a choice of draws of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.analysis.halo_mass import halo_mass
from bigbox.analysis.report.diagnostics import seam_numbers
from bigbox.analysis.report.draws import Ruler, beside, bins, open_draws
from bigbox.analysis.report.fields import Field, LazyArray, open_field
from bigbox.analysis.report.judge import Limits, judge
from bigbox.analysis.report.validate import validate
from bigbox.analysis.spectra.modes import jsonable, nyquist
from bigbox.ingest.draws import catalogue_of, drawn
from bigbox.ingest.headers import Told
from bigbox.ingest.particles import ingest_haloes
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from tests.catalogues import rockstar
from tests.fields import plant

DRAWS = 24  # that a box is judged beside
POOL = 80  # of which they are
FIRST = 1_000_000  # number of the first draw that is a box
HALVED = "a mass bin at half"
PER_VOLUME = 0.11  # haloes above 3e10 M_sun/h in a (Mpc/h)^3, as in the small N-body boxes
Values = np.ndarray
FAULTS: dict[str, Callable[[Values], Values]] = {
    "none": lambda tb: tb,
    "power + 10 %": lambda tb: tb * np.float32(1.1**0.5),
    "seams of 5 %": lambda tb: plant(tb, Tiling(tb.shape), "gain", 0.05),
    HALVED: lambda tb: tb,
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
            draw = FIRST + realizations * seed + number
            tb = np.asarray(box.require("tb")[...]) if itself else drawn(box, catalogue, draw)
            place = Path(made) / f"box{number}.zarr"
            paths.append(box_of(box, place, FAULTS[fault](tb), fault == HALVED))
        return validate(paths[0], truth=str(truth), realizations=paths[1:])


class Campaign:
    """Judge many boxes as `validate` does, without what it does not judge by.

    Draws are measured once: a box is judged beside the truth's own T_b and a choice of `POOL`.
    """

    def __init__(self, truth: Path, folder: Path, k_max: float = 10.0):
        self.truth, self.box = open_field(truth), Box.open(truth)
        found = open_draws(self.truth, DRAWS, [], 1 << 33)
        assert not isinstance(found, str), found
        self.draws, self.limits, self.tiling = found, Limits(), Tiling(self.truth.shape)
        most = min(k_max, 0.5 * nyquist(self.truth.shape, self.truth.box_size))
        edges = bins(self.truth.shape, self.truth.box_size, most)
        self.own = np.asarray(self.truth.array[...], np.float32)
        self.ruler = Ruler(self.own, found.mean, self.truth.box_size, edges, {"memory": 1 << 30})
        made = (drawn(self.box, found.catalogue, number) for number in range(1, POOL + 1))
        self.pool = [self.ruler.of(one) for one in made]
        halved = Box.open(box_of(self.box, folder / "halved.zarr", self.own, True))
        self.masses = {
            name: {"titles": list("0123")} | jsonable(vars(halo_mass(box, self.box, 1 << 28)))
            for name, box in (("", self.box), (HALVED, halved))
        }

    def judge(self, fault: str, seed: int, realizations: int = 1, itself: bool = False) -> Any:
        """The checks of one box."""
        numbers = range(FIRST + realizations * seed, FIRST + realizations * (seed + 1))
        plain = (
            self.own if itself else drawn(self.box, self.draws.catalogue, one) for one in numbers
        )
        painted = [FAULTS[fault](one) for one in plain]
        chosen = np.random.default_rng(seed).choice(POOL, DRAWS - 1, replace=False)
        beside_ = [self.ruler.of(self.own), *(self.pool[one] for one in chosen)]
        field = self._field(painted[0])
        rate = self.limits.false_alarm_rate
        seams = seam_numbers(
            field, None, [], self.draws.rest(field), self.tiling, rate, {"memory": 1 << 30}
        )
        return judge(
            {
                "seams": seams,
                "draws": jsonable(beside([self.ruler.of(one) for one in painted], beside_)),
                "card": None,
                "truth": self.truth.name,
                "halo_mass": self.masses[fault if fault == HALVED else ""],
            },
            self.limits,
        )

    def _field(self, values: Values) -> Field:
        array = LazyArray(values.shape, (64,) * 3, lambda region: values[region])
        return Field("box", array, "mK", self.truth.shape, self.truth.box_size)


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
        campaign = Campaign(truth, folder)
        for fault in given.faults:
            failed: dict[str, int] = {}
            passes = 0
            seeds = 1 if given.itself else given.seeds
            for seed in range(seeds):
                checks = campaign.judge(fault, seed, given.realizations, given.itself)
                bad = [check.what for check in checks if not check.passed]
                passes += not bad
                for what in bad:
                    failed[what] = failed.get(what, 0) + 1
                print(f"{fault}: {passes} of {seed + 1} pass", end="\r", file=sys.stderr)
            told = "; ".join(f"{what}: {n}" for what, n in failed.items())
            print(f"{fault}: {passes} of {seeds} pass. Failed: {told or 'none'}", flush=True)


if __name__ == "__main__":
    main()
