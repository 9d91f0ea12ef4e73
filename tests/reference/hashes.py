"""Hash `tb` and `halo` of small boxes, for every painter, overlap method, sampler and colouring.

The hashes in `hashes.json` were recorded before the core was rebuilt, those of tiles painted
together (joint) and on a painting grid when those came; `tests/launch/test_hashes.py` paints the
same boxes on 1 to 4 ranks and compares. Those of painters with torch hold for one kind of processor
and one version of torch, which stand beside them. The networks are small ones with random weights,
and once those that bigbox ships: a new default model changes that case alone.

    python -m tests.reference.hashes FOLDER     paints every case on one rank, prints JSON
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zarr

from tests import models

RECORDED = Path(__file__).with_suffix(".json")
SHAPES = {"cube": (64, 64, 64), "brick": (64, 96, 72), "fine": (128, 128, 160)}
MODEL = "MODEL"  # in options: the folder of small networks that `tests.models` writes
Case = tuple[str, tuple[str, ...]]


def cases() -> Iterator[Case]:
    """Yield (shape, options of `bigbox paint`); a case is named by both, joined by spaces."""
    plain = ("--overlap-method", "conditioned")
    for colouring in ("levels", "paper"):
        order = ("--colouring", colouring)
        yield "brick", ("--painter", "trivial", "--seed", "3", *plain, *order)
        latents = ("--overlap-method", "latents", "--steps", "3")
        yield "brick", ("--painter", "trivial", "--seed", "3", *latents, *order)
        for stride in ("32", "16"):
            halo = ("--painter", "trivial-halo", "--halo-stride", stride)
            yield "brick", (*halo, "--realization", "2", *plain, *order)
        for method in ("conditioned", "overwrite", "latents"):
            for sampler in ("dpmpp-sde", "dpmpp", "ancestral"):
                how = ("--overlap-method", method, "--sampler", sampler, "--steps", "4")
                yield "cube", ("--painter", "gaussian", "--seed", "5", *how, *order)
            how = ("--overlap-method", method, "--steps", "3", "--halo-stride", "32")
            yield "cube", ("--painter", "lodi", "--model", MODEL, "--seed", "7", *how, *order)
    flat = ("--halo-weighting", "flat", "--halo-stride", "32", "--steps", "2")
    yield "cube", ("--painter", "lodi", "--model", MODEL, "--seed", "8", *plain, *flat)
    sampler = ("--sampler", "ancestral", "--steps", "2")
    yield "cube", ("--painter", "lodi", "--model", MODEL, *plain, *sampler)
    joint = ("--overlap-method", "joint", "--steps", "3")
    yield "brick", ("--painter", "trivial", "--seed", "3", *joint)
    yield "brick", ("--painter", "trivial-halo", "--halo-stride", "32", "--margin", "5", *joint)
    for name in ("dpmpp-sde", "dpmpp", "ancestral"):
        yield "cube", ("--painter", "gaussian", "--seed", "5", "--sampler", name, *joint)
    yield "cube", ("--painter", "lodi", "--model", MODEL, "--seed", "7", *joint)
    yield "fine", ("--painter", "lodi", "--seed", "7", *joint)
    grid = ("--painting-grid", "2")
    yield "fine", ("--painter", "trivial-halo", "--seed", "3", "--halo-stride", "32", *grid, *joint)
    yield "brick", ("--painter", "trivial", "--seed", "3", "--tile", "16", *grid, *plain)
    yield "fine", ("--painter", "gaussian", "--seed", "5", *grid, *joint)


def density(shape: tuple[int, int, int]) -> np.ndarray:
    """Return 1 + delta without structure, mean 1, float32."""
    dm = np.random.default_rng(sum(shape)).lognormal(size=shape)
    return (dm / dm.mean()).astype(np.float32)


def make_box(folder: Path, shape: str, name: str) -> Path:
    """Ingest the density of that shape into folder/name."""
    grid, voxels = folder / f"{shape}.npy", SHAPES[shape]
    if not grid.exists():
        np.save(grid, density(voxels))
    sides = [str(n * 12.5 / 128) for n in voxels]
    command = ["ingest", str(grid), str(folder / name), "--redshift", "0", "--box-size", *sides]
    subprocess.run([sys.executable, "-m", "bigbox", *command], check=True, capture_output=True)
    return folder / name


def command(box: Path, options: tuple[str, ...], folder: Path) -> list[str]:
    """Return what `bigbox` is told to paint a case; the small networks go into `folder`."""
    if MODEL in options:
        model = str(folder / "model")
        if not (folder / "model").exists():
            models.write_model(folder / "model")
        options = tuple(model if option == MODEL else option for option in options)
    return ["paint", str(box), "--quiet", *options]


def hashes(box: Path, realization: int = 0) -> dict[str, str]:
    """Return sha256 of the bytes of `tb`, and of `halo` where the box has it."""
    place = box / f"realizations/{realization:04d}" if realization else box
    found = {"tb": _hash(place / "tb")}
    if (box / "halo").exists():
        found["halo"] = _hash(box / "halo")
    return found


def _hash(array: Path) -> str:
    values = np.ascontiguousarray(zarr.open_array(array, mode="r")[...])
    return hashlib.sha256(values.tobytes()).hexdigest()


def realization(options: tuple[str, ...]) -> int:
    """Return the realization that the options name."""
    return int(options[options.index("--realization") + 1]) if "--realization" in options else 0


def machine() -> dict[str, str]:
    """Return what decides the bytes of painters with torch: processor and versions."""
    import torch

    return {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": str(torch.cpu._is_avx512_bf16_supported()),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def main(folder: Path) -> None:
    """Paint every case on one rank and print the record."""
    found = {}
    for number, (shape, options) in enumerate(cases()):
        box = make_box(folder, shape, f"{number}.zarr")
        told = command(box, options, folder)
        subprocess.run([sys.executable, "-m", "bigbox", *told], check=True)
        found[" ".join((shape, *options))] = hashes(box, realization(options))
    print(json.dumps({"machine": machine(), "cases": found}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
