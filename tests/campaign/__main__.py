"""Run seeded faults over the real program, and print the table.

python -m tests.campaign --scenarios 300 --seed 1
python -m tests.campaign --replay 100123          one scenario again, told step by step
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path

from tests.boxes import scratch
from tests.campaign import damage, inside, processes
from tests.campaign.place import RECIPES, Bad, Place, sources

KINDS = processes.KINDS | inside.KINDS | damage.KINDS
# Where a kind says most: all others draw any recipe.
ONLY = {"no memory for a batch": ("joint", "conditioned"), "NaN from a network": ("joint",
        "conditioned"), "kill -9 of ingest": ("joint", "latents")}  # fmt: skip
WEIGHT = {
    "kill -9 at any system call": 4,
    "bytes flipped, cut, blanked, lost in any file": 5,
    "system calls that fail: ENOSPC, EROFS, EIO, ...": 3,
}
NEEDS_ROOT = ("full disk: bytes or inodes, then room again", "read-only, then writable again")
BAD = ("lost", "wrong", "hang", "crash", "refused")


def kind_of(seed: int) -> str:
    """The kind of a scenario, by its seed."""
    names = [name for name in KINDS for _ in range(WEIGHT.get(name, 1))]
    return names[seed % len(names)]


def scenario(seed: int, folder: Path, found: dict) -> tuple[str, str, list[str]]:
    """Run one: return its kind, what was bad of it ("" for nothing), and its story."""
    kind, rng = kind_of(seed), random.Random(seed)
    recipe = rng.choice(ONLY.get(kind, tuple(RECIPES)))
    source, truth = found[recipe]
    place = Place(folder / str(seed), recipe, rng, truth, source)
    place.tell(f"{kind}, {recipe}")
    place.folder.mkdir()
    try:
        place.fresh()
        KINDS[kind](place)
        return kind, "", place.story
    except Bad as bad:
        return kind, bad.what, [*place.story, str(bad)]
    except Exception:
        return kind, "crash", [*place.story, traceback.format_exc()]
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)


def run(seeds: list[int], log: Path | None = None, say: bool = False) -> list[tuple[int, str, str]]:
    """Run scenarios: return seed, kind and what was bad of each."""
    results = []
    with scratch() as folder:
        found = sources(folder)
        for seed in seeds:
            if kind_of(seed) in NEEDS_ROOT and os.geteuid():
                continue
            if kind_of(seed) == "clock jumps" and not shutil.which("cc"):
                continue
            began = time.monotonic()
            kind, bad, story = scenario(seed, folder, found)
            results.append((seed, kind, bad))
            line = {"seed": seed, "kind": kind, "bad": bad, "story": story}
            line["seconds"] = round(time.monotonic() - began, 1)
            if log is not None:
                with open(log, "a") as file:
                    file.write(json.dumps(line) + "\n")
            if say or bad:
                print(f"{seed} {kind}: {bad or 'good'}\n  " + "\n  ".join(story), flush=True)
    return results


def table(results: list[tuple[int, str, str]]) -> str:
    """The table, by kind."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for _, kind, bad in results:
        counts[kind]["all"] += 1
        counts[kind][bad] += bool(bad)
    lines = [
        "| what happens | scenarios | " + " | ".join(BAD) + " |",
        "|---" * (2 + len(BAD)) + "|",
    ]
    for kind in KINDS:
        row = counts[kind]
        lines.append(f"| {kind} | {row['all']} | " + " | ".join(str(row[b]) for b in BAD) + " |")
    total = sum(counts.values(), Counter())
    lines.append(f"| all | {total['all']} | " + " | ".join(str(total[b]) for b in BAD) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run what was asked for; 1 where anything was bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1, help="the first scenario is 100000 times it")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many of the first")
    parser.add_argument(
        "--replay", type=int, nargs="*", help="these scenarios alone, by their seeds"
    )
    parser.add_argument("--only", default="", help="kinds that contain this")
    parser.add_argument("--log", type=Path, help="append a JSON line a scenario")
    parser.add_argument(
        "--table-of", type=Path, help="print the table of such a log, and run nothing"
    )
    options = parser.parse_args()
    if options.table_of:
        rows = [json.loads(line) for line in options.table_of.read_text().splitlines()]
        results = [(row["seed"], row["kind"], row["bad"]) for row in rows]
    else:
        first = 100_000 * options.seed
        seeds = options.replay or range(first + options.skip, first + options.scenarios)
        seeds = [seed for seed in seeds if options.only in kind_of(seed)]
        results = run(list(seeds), options.log, say=bool(options.replay))
    print(table(results))
    return int(any(bad for _, _, bad in results))


if __name__ == "__main__":
    sys.exit(main())
