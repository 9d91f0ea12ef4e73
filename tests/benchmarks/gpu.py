"""How near painting on a GPU comes to what the GPU can do, in one go and in under four minutes.

    python -m tests.benchmarks.gpu                        on a GPU
    python -m tests.benchmarks.gpu --device cpu --small   the same code on any machine

Parts are tried one by one, the most important first; each prints what it finds at once, and one
that fails or finds no time left says so in a line. At the end all is printed as one table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

START = time.perf_counter()

from bigbox.devices import find_device  # noqa: E402
from tests.benchmarks import gpu_boxes as boxes  # noqa: E402
from tests.benchmarks import gpu_networks as networks  # noqa: E402
from tests.benchmarks.gpu_bench import Bench, Row  # noqa: E402

IMPORTED = time.perf_counter() - START


PARTS: list[tuple[float, Callable[[Bench], Iterator[Row]]]] = [
    (0, networks.machine),
    (0, networks.ceilings),
    (10, networks.lodi_paper),
    (10, networks.lodi_mini),
    (15, boxes.steps),
    (5, networks.profile_paper),
    (5, networks.profile_mini),
    (15, boxes.whole),
    (10, networks.halogen),
    (10, networks.convolutions),
    (5, networks.lodi_others),
    (12, boxes.error_in_power),
    (1, networks.choices),
    (20, boxes.unit_tests),
    (40, networks.compiled),
]


def main() -> None:
    """Measure all, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the code")
    parser.add_argument("--seconds", type=float, default=195.0, help="to be done in, about")
    parser.add_argument("--only", nargs="+", help="names of parts")
    parser.add_argument("--paint", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.paint:
        boxes.paint_one(*options.paint, options.device, options.seed, IMPORTED)
        return
    device = str(find_device(options.device))
    with tempfile.TemporaryDirectory(prefix="bigbox-gpu-") as folder:
        # The caches of whoever runs this are left alone, and a first run is a first run.
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        bench = Bench(device, options.small, Path(folder), START, options.seconds)
        bench.say(("imports of this benchmark", f"{IMPORTED:.1f} s"))
        for needs, work in PARTS:
            if not options.only or work.__name__ in options.only:
                bench.part(needs, work)
        print("\n| what | found |\n|---|---|")
        for name, text in bench.rows:
            print(f"| {name} | {text} |")
        print(f"\nin {time.perf_counter() - START:.0f} s", flush=True)


if __name__ == "__main__":
    main()
