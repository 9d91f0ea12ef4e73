"""Train the 3-D model on the dm of boxes: windows, masks, quantised latents, one loss.

    window 52^3 voxels      o . . . . . . . . . . . o      cells of 4 voxels, o: halo of the encoder
    latents 9^3 cells           c c c c c c c c c
    tile 32^3 voxels              |-------------|          begins at any voxel of its first cell

A step draws windows of any box, turned by any of the 48 symmetries of a cube. Half of them are
where mass is: voids fill most of a box, and clusters make most of its power.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bigbox.cosmoflow.local import CELL, HALO, LocalFlow, LocalSize, spread
from bigbox.networks.transforms import LogTransform

TILE = 32
CELLS = TILE // CELL + 1  # of latents under a tile that begins anywhere in a cell
WINDOW = CELL * (CELLS + 2 * HALO)
MARGIN = 3  # voxels at a tile's faces that are not kept when painting, and not learned
FLOOR = 0.1  # of the logarithm, in mean densities
EMA_MOST = 0.999
ALONG_MASS = 0.5  # share of windows that are where mass is
BLOCK = 8  # voxels on an axis whose mass is added up for that
INNER = 12  # voxels at least from a window's face to the mass that it was chosen for
SAVED = 60.0  # seconds between checkpoints


@dataclass(frozen=True)
class LocalRecipe:
    """How the networks are trained."""

    batch: int = 8
    rate: float = 2e-3  # of learning, at first; it falls to nothing as a cosine
    noise: float = 0.15  # the step that latents are rounded to, as noise of a step's width
    bound: float = 1e-3  # of the latents' mean square: bits are bounded only with it
    seconds: float = 2600.0  # of training, all runs together
    device: str = "cpu"


class Windows:
    """Windows of density fields, drawn by one generator."""

    def __init__(self, fields: Sequence[np.ndarray], seed: int) -> None:
        self._fields, self._random = fields, np.random.default_rng(seed)
        self._mass = []
        for field in fields:
            x, y, z = (edge // BLOCK for edge in field.shape)
            whole = field[: x * BLOCK, : y * BLOCK, : z * BLOCK]
            blocks = whole.reshape(x, BLOCK, y, BLOCK, z, BLOCK).sum(axis=(1, 3, 5), dtype="f8")
            self._mass.append(blocks.cumsum() / blocks.sum())

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return windows float32 (B, 1, w, w, w) and where in its first cell each tile begins."""
        random, found = self._random, np.empty((count, 1, *(WINDOW,) * 3), np.float32)
        for row in found:
            index = int(random.integers(len(self._fields)))
            field = self._fields[index]
            corner = random.integers(0, field.shape)
            if random.random() < ALONG_MASS:
                block = int(np.searchsorted(self._mass[index], random.random()))
                place = np.unravel_index(block, [edge // BLOCK for edge in field.shape])
                inside = random.integers(0, BLOCK, 3) - random.integers(INNER, WINDOW - INNER, 3)
                corner = BLOCK * np.array(place) + inside
            under = zip(corner, field.shape, strict=True)
            row[0] = _turned(
                field[np.ix_(*((c + np.arange(WINDOW)) % n for c, n in under))], random
            )
        return found, random.integers(0, CELL, (count, 3))


def _turned(cube: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a cube turned by one of its 48 symmetries."""
    flips = tuple(axis for axis in range(3) if random.random() < 0.5)
    return np.flip(cube.transpose(random.permutation(3)), flips)


def losses(
    flow: LocalFlow, density: Tensor, offset: np.ndarray, recipe: LocalRecipe
) -> dict[str, Tensor]:
    """Return the mean squared error of the velocity, and the latents' mean square.

    density: windows (B, 1, w, w, w); offset: (B, 3), where in its first cell each tile begins.
    """
    latents = flow.encoder(density)
    noisy = latents + recipe.noise * (torch.rand_like(latents) - 0.5)
    told = torch.cat([spread(one[None], at, TILE) for one, at in zip(noisy, offset, strict=True)])
    first = CELL * HALO + offset
    tiles = [
        one[0, a : a + TILE, b : b + TILE, c : c + TILE]
        for one, (a, b, c) in zip(density, first.tolist(), strict=True)
    ]
    x1 = flow.encoder.transform.forward(torch.stack(tiles))
    count, device = len(x1), x1.device
    # One time from each equal part of 0 .. 1: less scatter than of independent ones.
    t = (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count
    x0, by = torch.randn_like(x1), t[:, None, None, None]
    v = flow.velocity(by * x1 + (1 - by) * x0, t, told)
    inside = (..., *(slice(MARGIN, -MARGIN),) * 3)
    error = ((v - (x1 - x0))[inside] ** 2).mean()
    return {"velocity": error, "latents": latents.square().mean()}


class LocalTraining:
    """A training that goes on from its checkpoint in `out`; losses go to `out`/curve.jsonl."""

    def __init__(
        self,
        fields: Sequence[np.ndarray],
        out: Path,
        recipe: LocalRecipe,
        size: LocalSize | None = None,
        held_out: Sequence[np.ndarray] = (),
        seed: int = 0,
    ) -> None:
        self.out, self.recipe, self._held_out = out, recipe, held_out
        out.mkdir(parents=True, exist_ok=True)
        self._checkpoint = out / "checkpoint.pt"
        state = None
        if self._checkpoint.exists():
            state = torch.load(self._checkpoint, weights_only=True, map_location=recipe.device)
            size = LocalSize(**state["size"] | {"widths": tuple(state["size"]["widths"])})
            transform = LogTransform(**state["transform"])
        else:
            transform = LogTransform.fit(fields, floor=FLOOR)
        torch.manual_seed(seed)
        self.flow, self.average = (
            LocalFlow(size or LocalSize(), transform).to(recipe.device) for _ in range(2)
        )
        self.average.load_state_dict(self.flow.state_dict())
        parameters = self.flow.parameters()
        self._optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=0.01)
        self.spent, self.step = 0.0, 0
        if state is not None:
            self.flow.load_state_dict(state["pair"])
            self.average.load_state_dict(state["average"])
            self._optimiser.load_state_dict(state["optimiser"])
            self.spent, self.step = state["spent"], state["step"]
            torch.manual_seed(seed + self.step)
        self._windows = Windows(fields, seed + self.step)

    def run(self) -> LocalFlow:
        """Train until the recipe's time is spent; return the averaged networks."""
        began, saved, before, seen = time.monotonic(), time.monotonic(), self.spent, []
        while self.spent < self.recipe.seconds:
            seen.append(self._take_step())
            now = time.monotonic()
            self.spent = before + now - began
            if now - saved > SAVED or self.spent >= self.recipe.seconds:
                saved = now
                self._save(np.mean(seen, axis=0).tolist())
                seen = []
        return self.average

    def _take_step(self) -> list[float]:
        recipe = self.recipe
        left = 0.5 * (1 + math.cos(math.pi * min(1.0, self.spent / recipe.seconds)))
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.rate * left * min(1.0, (self.step + 1) / 50)
        density, offset = self._windows.draw(recipe.batch)
        found = losses(self.flow, torch.from_numpy(density).to(recipe.device), offset, recipe)
        self._optimiser.zero_grad(set_to_none=True)
        (found["velocity"] + recipe.bound * found["latents"]).backward()
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), 1.0)
        self._optimiser.step()
        self.step += 1
        decay = min(EMA_MOST, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.flow.parameters(), strict=True)
            for mine, other in pairs:
                mine.lerp_(other, 1 - decay)
        return [float(value.detach()) for value in found.values()]

    def _save(self, means: list[float]) -> None:
        line = {"step": self.step, "seconds": self.spent}
        line |= dict(zip(("velocity", "latents"), means, strict=True))
        if len(self._held_out):
            line["held_out"] = held_out_loss(self.average, self._held_out, self.recipe)
        with (self.out / "curve.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        state = {
            "pair": self.flow.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "transform": asdict(self.flow.encoder.transform),
            "size": asdict(self.flow.size),
            "spent": self.spent,
            "step": self.step,
        }
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._checkpoint)


@torch.no_grad()
def held_out_loss(flow: LocalFlow, fields: Sequence[np.ndarray], recipe: LocalRecipe) -> float:
    """Return the velocity error on 32 windows of other fields, the same ones each time."""
    windows, found = Windows(fields, 0), []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(4):
            density, offset = windows.draw(8)
            given = torch.from_numpy(density).to(recipe.device)
            found.append(float(losses(flow, given, offset, recipe)["velocity"]))
    return float(np.mean(found))
