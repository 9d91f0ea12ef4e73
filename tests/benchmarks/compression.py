"""Bits for each voxel against what is left of a box: bigbox compress beside other lossy codecs.

    python -m tests.benchmarks.compression curve box.zarr --out compression
    python -m tests.benchmarks.compression train boxes/*.zarr --out model --minutes 60

`curve` writes OUT/curve.json, OUT/curve.md and OUT/curve.png; each row goes to the file as it is
done, and the same command goes on from there. P is the power spectrum of the density over that of
the original, r the cross-correlation with it. The other codecs work on log10(1 + delta + 0.1), with
an absolute error or so many bits, which serves them better than the density itself.

`train` trains the 3-D model, or goes on (OUT has its checkpoint); the last box is held out. On a
GPU: --device cuda --batch 64 --minutes 9.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FLOOR = 0.1
CELL = 4
EDGES = np.array([0.4, 1.5, 2.5, 3.5, 4.5, 5.5, 9.0, 12.0, 20.0])  # of bins of k, h/Mpc
STEPS = (0.05, 0.15, 0.5, 1.5)  # that latents are rounded to


def spectra(truth: np.ndarray, found: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    """P over the truth's and r, by bin of k, of two densities in a cubic box of `side` Mpc/h."""
    n = truth.shape[0]
    k = 2 * np.pi * n / side * np.fft.fftfreq(n)
    last = abs(k[: n // 2 + 1])
    length = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + last**2).ravel()
    weight = np.full((n, n, n // 2 + 1), 2.0)
    weight[..., [0, n // 2]] = 1.0
    a, b = (np.fft.rfftn(field.astype(np.float64)).ravel() for field in (truth, found))

    def binned(values: np.ndarray) -> np.ndarray:
        return np.histogram(length, EDGES, weights=values * weight.ravel())[0]

    aa, bb, ab = binned(abs(a) ** 2), binned(abs(b) ** 2), binned((a * b.conj()).real)
    return bb / aa, ab / np.sqrt(aa * bb)


def _hdf5(field: np.ndarray, codec: Any) -> tuple[np.ndarray, int]:
    """What an HDF5 filter makes of a field, and its bytes."""
    import h5py

    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        made = file.create_dataset("x", data=field, chunks=(64,) * 3, **codec)
        return made[:], int(made.id.get_storage_size())


def others(dm: np.ndarray) -> Iterator[tuple[str, str, Callable[[], tuple[np.ndarray, int]]]]:
    """Name, setting, and what makes density and bytes, of codecs that know nothing of the sky."""
    import hdf5plugin
    import numcodecs

    x = np.log10(dm + np.float32(FLOOR))

    def dense(y: np.ndarray) -> np.ndarray:
        return np.clip(10.0 ** y.astype(np.float64) - FLOOR, 0, None)

    yield "float16", "", lambda: (dm.astype(np.float16).astype(np.float64), 2 * dm.size)

    def rounded(bits: int) -> tuple[np.ndarray, int]:
        from numcodecs.bitround import BitRound

        kept = BitRound(bits).encode(dm.copy())
        return kept.view(np.float32), len(numcodecs.Blosc("zstd", 9).encode(kept))

    for bits in (6, 3, 1):
        yield "bitround, zstd", f"{bits} bits", lambda bits=bits: rounded(bits)

    def by_filter(codec: Any) -> tuple[np.ndarray, int]:
        y, size = _hdf5(x, codec)
        return dense(y), size

    for rate in (4, 2, 1):
        yield "ZFP", f"rate {rate}", lambda r=rate: by_filter(hdf5plugin.Zfp(rate=r))
    for error in (0.01, 0.05, 0.2, 0.5):
        yield "SZ3", f"{error:g} dex", lambda e=error: by_filter(hdf5plugin.SZ3(absolute=e))

    def means(step: float) -> tuple[np.ndarray, int]:
        from bigbox.cosmoflow.encode import cell_means

        whole = np.rint(np.log10(1 + cell_means(dm) / FLOOR) / step).astype(np.int16)
        size = len(numcodecs.PCodec(level=8).encode(np.ascontiguousarray(whole).ravel()))
        field = FLOOR * (10.0 ** (whole * step) - 1)
        for axis in range(3):
            field = field.repeat(CELL, axis)
        return field, size

    for step in (0.015, 0.05):
        yield "means of cells alone", f"{step:g} dex", lambda step=step: means(step)


def ours(
    box: Path, model: Path | None, out: Path, calls: int | None
) -> Iterator[tuple[str, str, Callable[[], tuple[np.ndarray, int]]]]:
    """The same for bigbox compress and decompress."""
    from bigbox.cosmoflow.decode import DecompressOptions, decompress
    from bigbox.cosmoflow.encode import CompressOptions, compress
    from bigbox.store.box import Box

    def made(step: float) -> tuple[np.ndarray, int]:
        small, again = out / f"step{step:g}", out / f"step{step:g}.zarr"
        held = compress(CompressOptions(box, small, model, step=step))
        decompress(DecompressOptions(small, again, model, steps=calls))
        found = Box.open(again).array("dm")[:]
        shutil.rmtree(again)
        return found, int(held.attributes["bytes"])

    for step in STEPS:
        yield "bigbox compress", f"step {step:g}", lambda step=step: made(step)


def curve(options: argparse.Namespace) -> None:
    """Measure every codec, and write table and figure."""
    from bigbox.store.box import Box

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "curve.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    box = Box.open(options.box)
    dm = box.array("dm")[:]
    known = {(row["codec"], row["setting"]) for row in rows}
    mine = ours(options.box, options.model, options.out, options.calls)
    for codec, setting, make in (*others(dm), *mine):
        if (codec, setting) in known:
            continue
        found, size = make()
        power, r = spectra(dm, found, box.box_size[0])
        bits = 8 * size / dm.size
        rows.append(
            {"codec": codec, "setting": setting, "bits": bits}
            | {"power": power.tolist(), "r": r.tolist(), "mean": float(found.mean() / dm.mean())}
        )
        path.write_text(json.dumps(rows, indent=1))
        print(f"{codec} {setting}: {bits:.3f} bits, P {power.round(3)}, r {r.round(3)}", flush=True)
    (options.out / "curve.md").write_text(markdown(rows))
    figure(rows, options.out / "curve.png")


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    names = [f"{a:g} to {b:g}" for a, b in zip(EDGES[:-1], EDGES[1:], strict=True)]
    lines = [
        "| codec | setting | bits/voxel | " + " | ".join(f"k = {n}" for n in names) + " |",
        "|" + "---|" * (3 + len(names)),
    ]
    for row in sorted(rows, key=lambda row: -row["bits"]):
        pairs = (f"{p:.3f}, {r:.3f}" for p, r in zip(row["power"], row["r"], strict=True))
        head = [row["codec"], row["setting"], f"{row['bits']:.3f}"]
        lines.append("| " + " | ".join((*head, *pairs)) + " |")
    return "\n".join(lines) + "\n"


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Bits against the largest error of P, and 1 - r, over k below 3.5 and 9 h/Mpc."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, panels = plt.subplots(2, 2, figsize=(9, 7), sharex=True, layout="constrained")
    for column, most in enumerate((3.5, 9.0)):
        last = int(np.searchsorted(EDGES, most))
        for codec in dict.fromkeys(row["codec"] for row in rows):
            some = sorted((r for r in rows if r["codec"] == codec), key=lambda row: row["bits"])
            bits = [row["bits"] for row in some]
            errors = [max(abs(np.array(row["power"][:last]) - 1)) for row in some]
            lost = [max(1 - np.array(row["r"][:last])) for row in some]
            for panel, values in zip(panels[:, column], (errors, lost), strict=True):
                panel.loglog(bits, np.maximum(values, 1e-6), "o-", label=codec)
        panels[0, column].set_title(f"k < {most:g} h/Mpc")
        panels[1, column].set_xlabel("bits for each voxel")
    panels[0, 0].set_ylabel("largest |P / P of the original - 1|")
    panels[1, 0].set_ylabel("largest 1 - r")
    panels[0, 0].legend(fontsize=8)
    fig.savefig(path, dpi=110)


def train(options: argparse.Namespace) -> None:
    """Train the 3-D model on all boxes but the last, and save it."""
    import torch

    from bigbox.cosmoflow.local_model import save_local
    from bigbox.cosmoflow.local_training import LocalRecipe, LocalTraining
    from bigbox.store.box import Box

    torch.set_num_threads(1)
    boxes = [Box.open(path) for path in options.boxes]
    fields = [box.array("dm")[:] for box in boxes]
    recipe = LocalRecipe(batch=options.batch, seconds=60 * options.minutes, device=options.device)
    training = LocalTraining(fields[:-1], options.out, recipe, held_out=fields[-1:])
    average = training.run().cpu()
    about = {
        "voxel_size": boxes[0].voxel,
        "redshift": boxes[0].redshift,
        "cosmology": boxes[0].attributes["cosmology"],
        "sources": [str(box.path.name) for box in boxes[:-1]],
        "provenance": {"steps": training.step, "batch": recipe.batch, "seconds": training.spent},
    }
    save_local(options.out, average, recipe.noise, about, torch.float16)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("curve")
    one.add_argument("box", type=Path)
    one.add_argument("--model", type=Path)
    one.add_argument("--calls", type=int, help="of the network for each tile")
    one.set_defaults(run=curve)
    two = commands.add_parser("train")
    two.add_argument("boxes", type=Path, nargs="+")
    two.add_argument("--minutes", type=float, default=60.0)
    two.add_argument("--batch", type=int, default=8)
    two.add_argument("--device", default="cpu")
    two.set_defaults(run=train)
    for command in (one, two):
        command.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
