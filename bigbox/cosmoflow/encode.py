"""Compress a box: the encoder runs over it out of core, with its reach as a halo.

    work unit, voxels     |-- 16 --|<------ 64 ------>|-- 16 --|      read, wrapped round the box
    latents                        |<--- 16 cells --->|               kept

Every unit is a cube of the same size at a fixed place, whatever is read at once and however many
threads there are. So the bytes of the latents depend on the box, the model and the step alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox.blockwise import map_blocks, workers
from bigbox.cosmoflow.compressed import FORMAT, MISSING, SHARD, VERSION, Compressed
from bigbox.cosmoflow.local import CELL, HALO, LocalEncoder
from bigbox.cosmoflow.local_model import load_local, shipped_model
from bigbox.errors import BadInput
from bigbox.networks.model import Model
from bigbox.painters.models import Facts, differences
from bigbox.scheduler.grid import Slices, Triple, triple
from bigbox.store.box import Box
from bigbox.store.cutouts import CutoutReader

# Of the step of the learned latents: that of a cell's mean density, in dex.
DEX = 0.1
UNIT = 16  # latents on an axis that are made at once
MEMORY = 1 << 30  # bytes of units in work
COPIES = 40  # of a unit's voxels in float32, in work
CACHE = 128 << 20  # bytes of dm that are kept for the next unit
ABOUT = ("shape", "box_size", "redshift", "cosmology", "provenance")  # of the box


@dataclass(frozen=True)
class CompressOptions:
    """What `bigbox compress` was asked for; see its --help."""

    box: Path
    out: Path
    model: Path | None = None
    field: str = "dm"
    step: float | None = None
    force: bool = False
    workers: int | None = None


def compress(options: CompressOptions) -> Compressed:
    """Compress a box, or go on with it. Raises BadInput; nothing is written then."""
    box, model = Box.open(options.box), load_local(options.model or shipped_model())
    forced = check_fits(box, model, options.field, options.force)
    attributes = _attributes(box, model, options)
    attributes |= {"forced": forced} if forced else {}
    out = _begun(options.out, attributes)
    todo = [shard for shard in out.shards if not out.file(shard).exists()]
    if todo:
        torch.set_num_threads(1)  # a unit a thread
        reader = CutoutReader(box.array(options.field), cache_bytes=CACHE)
        encode = Encode(reader, model.network.encoder, np.array(out.steps))  # type: ignore[arg-type]
        for shard in todo:
            out.write(shard, encode.region(out.region(shard), options.workers))
    if not out.attributes.get("complete"):
        out.finish()
    return out


def check_fits(box: Box, model: Model, field: str, force: bool = False) -> str:
    """Return in what the box is another than the model knows; raise BadInput unless `force`."""
    known = model.card["field"]
    if field != known:
        raise BadInput(
            f"{box.path}/{field}: the model compresses {known}, another field than {field}; train"
            " a model for it, or leave out --field"
        )
    box.require(field)
    found = differences(model.card, Facts.of(box))
    told: dict[str, Any] = box.array(field).attrs.asdict()
    smoothing = float(told.get("smoothing") or 0.0)
    if abs(smoothing - float(model.card["smoothing"])) > 1e-3:
        found.append(
            f"smoothing of {field} {smoothing:g} Mpc/h where the model knows"
            f" {model.card['smoothing']:g} Mpc/h"
        )
    if found and not force:
        raise BadInput(
            f"{box.path}: the model is not for it ({'; '.join(found)}); ingest with another --grid,"
            " train a model for it, or --force, if you know better"
        )
    for axis, n in zip("xyz", box.shape, strict=True):
        if n % CELL:
            raise BadInput(
                f"{box.path}: {n} voxels on axis {axis}, must be a multiple of {CELL}, the edge of"
                " a latent's cell; ingest with another --grid"
            )
    return "; ".join(found)


def _attributes(box: Box, model: Model, options: CompressOptions) -> dict[str, Any]:
    step = float(model.card["step"]) if options.step is None else options.step
    steps = [DEX * step] + [step] * int(model.card["size"]["channels"])
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "field": options.field,
        "cell": CELL,
        "channels": len(steps),
        "steps": steps,
        "model": model.sha256,
        "model_folder": str(options.model or "shipped"),
        **{name: box.attributes.get(name) for name in ABOUT},
    }


def _begun(path: Path, attributes: dict[str, Any]) -> Compressed:
    """Return the store, made or found. Raises BadInput where it holds anything else."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return Compressed.create(path, attributes)
    if path.is_dir() and not (path / "zarr.json").exists() and (path / "latent").exists():
        return Compressed.create(path, attributes)  # killed as it was made
    found = Compressed.open(path)
    for name, value in attributes.items():
        if found.attributes.get(name) != value and name != "model_folder":
            raise BadInput(
                f"{path}: holds another compression: {name} = {found.attributes.get(name)}, this"
                f" run asks for {value}; remove it, or choose another OUT"
            )
    return found


@dataclass(frozen=True)
class Encode:
    """Encode cubes of cells of one array."""

    reader: CutoutReader
    encoder: LocalEncoder
    steps: np.ndarray  # (C + 1,)

    def region(self, region: Slices, threads: int | None = None) -> np.ndarray:
        """Return the latents of a region, whole numbers, int16 (C, ...)."""
        shape = [part.stop - part.start for part in region]
        found = np.empty((len(self.steps), *shape), np.int16)
        corners = [
            triple(part.start + UNIT * i for part, i in zip(region, at, strict=True))
            for at in np.ndindex(*(-(-n // UNIT) for n in shape))
        ]
        each = 4 * COPIES * (CELL * (UNIT + 2 * HALO)) ** 3
        made = map_blocks(self.unit, corners, workers=threads or workers(each, MEMORY))
        for corner, values in zip(corners, made, strict=True):
            at = [c - part.start for c, part in zip(corner, region, strict=True)]
            to = tuple(slice(a, min(a + UNIT, n)) for a, n in zip(at, shape, strict=True))
            part = tuple(slice(s.stop - s.start) for s in to)
            found[(slice(None), *to)] = values[(slice(None), *part)]
        return found

    @torch.inference_mode()
    def unit(self, corner: Triple) -> np.ndarray:
        """Return UNIT^3 latents from a cell on, whole numbers, int16 (C, ...)."""
        edge = CELL * (UNIT + 2 * HALO)
        density = self.reader.read([CELL * (c - HALO) for c in corner], (edge,) * 3)
        if (least := float(density.min())) < 0:
            raise BadInput(
                f"dm: {least:.3g} in the cube of {edge} voxels from {[CELL * c for c in corner]}"
                " on, a density is at least 0; ingest the box again"
            )
        inside = (slice(CELL * HALO, -CELL * HALO),) * 3
        means = cell_means(density[inside])
        learned = self.encoder(torch.from_numpy(density)[None, None])[0].numpy()
        mass = np.log10(1.0 + means / self.encoder.transform.floor)[None]
        return quantised(np.concatenate([mass, learned]), self.steps)


def cell_means(density: np.ndarray) -> np.ndarray:
    """Return the mean of each cell, float64."""
    x, y, z = (n // CELL for n in density.shape)
    cells = density.reshape(x, CELL, y, CELL, z, CELL)
    return np.asarray(cells.mean(axis=(1, 3, 5), dtype=np.float64))


def quantised(latents: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the whole numbers nearest to latents / steps, int16 (halves go to the even one)."""
    most = -MISSING - 1
    return np.clip(np.rint(latents / steps[:, None, None, None]), -most, most).astype(np.int16)


assert SHARD % UNIT == 0
