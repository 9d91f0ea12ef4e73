"""Compare a stitched box with a reference, by stage of the tile that owns the voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.analysis.seams.cells import Block, all_layers, check_shape, choose_blocks
from bigbox.analysis.seams.planes import MEMORY
from bigbox.blockwise import map_blocks
from bigbox.errors import BadInput
from bigbox.scheduler.stages import stage, stages
from bigbox.scheduler.tiling import Tiling


@dataclass(frozen=True)
class StageResidual:
    """Box minus reference over the voxels that tiles of one stage own.

    mean, rms: in the field's unit; rms_at_seams: of the voxels next to a seam, on both its sides;
    relative: rms over the reference's rms about its mean, everywhere.
    """

    stage: int
    tiles: int
    voxels: int
    mean: float
    rms: float
    rms_at_seams: float
    relative: float


def stage_residuals(
    array: Any,
    reference: Any,
    tiling: Tiling,
    *,
    colouring: str = "levels",
    memory: int = MEMORY,
    workers: int = 1,
) -> tuple[StageResidual, ...]:
    """Return residuals of a stitched box against a reference, by stage of the owning tile."""
    check_shape(array, tiling, "field")
    check_shape(reference, tiling, "reference")
    layers, last = all_layers(tiling), stages(tiling, colouring)
    blocks = choose_blocks(tiling, layers, 0, memory, workers)
    edge = [np.zeros(n, bool) for n in tiling.shape]
    for line, one in zip(edge, layers, strict=True):
        line[one.seams] = line[one.seams - 1] = True

    def sums(block: Block) -> npt.NDArray[np.float64]:
        """Per stage: voxels, residual, its square, voxels and square at seams; last: reference."""
        truth = block.read(reference).astype(np.float64)
        rest = block.read(array) - truth
        x, y, z = (line[slice(*b)] for line, b in zip(edge, block.bounds, strict=True))
        seam = x[:, None, None] | y[None, :, None] | z
        cells = np.ix_(*(np.arange(*c) for c in block.cells))
        of_cell = stage(tiling, tiling.index(np.stack(np.broadcast_arrays(*cells), -1)), colouring)
        found = np.zeros((last + 1, 5))
        for column, values in enumerate(
            (np.ones_like(rest), rest, rest**2, seam.astype(np.float64), seam * rest**2)
        ):
            total = block.cell_sums(values, layers, (0, 1, 2))
            np.add.at(found[:, column], of_cell, total)
        found[-1, :3] = truth.size, truth.sum(), (truth**2).sum()
        return found

    total = np.zeros((last + 1, 5))
    for found in map_blocks(sums, blocks, workers=workers):
        total += found
    if not np.isfinite(total).all():
        raise BadInput("residual: the field or the reference is not finite; repair it first")
    count, mean, square = total[-1, :3]
    spread = np.sqrt(max(square / count - (mean / count) ** 2, 0.0))
    tiles = np.bincount(stage(tiling, np.arange(tiling.size), colouring), minlength=last)
    return tuple(
        StageResidual(
            stage=s,
            tiles=int(tiles[s]),
            voxels=int(row[0]),
            mean=float(row[1] / row[0]),
            rms=float(np.sqrt(row[2] / row[0])),
            rms_at_seams=float(np.sqrt(row[4] / row[3])) if row[3] else np.nan,
            relative=float(np.sqrt(row[2] / row[0]) / spread) if spread > 0 else np.nan,
        )
        for s, row in enumerate(total[:last])
    )
