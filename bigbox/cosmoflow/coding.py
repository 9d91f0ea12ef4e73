"""Encode maps as latents, decode latents as maps, and keep latents in a file.

LATENTS.safetensors: "latent" float32 (N, C, n/f, n/f), "simulation" int64 (N,), "parameters"
float64 (N, 2); its metadata has the model's checksum, and what the maps were.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from bigbox.cosmoflow.maps import Maps, batches
from bigbox.cosmoflow.solvers import adaptive, euler, heun
from bigbox.errors import BadInput
from bigbox.networks.identity import weights_sha256
from bigbox.networks.model import Model
from bigbox.networks.transforms import LogTransform
from bigbox.store.durable import DISK, explained

BATCH = 16  # maps at once
CALLS = 30  # of the velocity network, for a map
SOLVERS = ("euler", "heun", "adaptive")
KEYS = ("latent", "simulation", "parameters")
Float = NDArray[np.float32]


@dataclass(frozen=True)
class Latents:
    """Hold encoded maps, and what they were."""

    latent: Float  # (N, C, h, w)
    simulation: NDArray[np.int64]  # (N,)
    parameters: NDArray[np.float64]  # (N, 2), Omega_m and sigma8
    about: dict[str, Any]  # "model", "kind", and of the maps what `Maps.about` has

    @property
    def summary(self) -> Float:
        """The mean of each channel, (N, C): a map in C numbers."""
        return self.latent.mean((2, 3))


def transform_of(model: Model) -> LogTransform:
    """Return the normalisation of a model's maps."""
    return model.transform(str(model.card["maps"]["field"]))


def device_of(model: Model) -> torch.device:
    """Return where the network is."""
    return next(model.network.parameters()).device


@torch.no_grad()
def encode(model: Model, maps: Maps) -> Latents:
    """Encode all maps."""
    network: Any = model.network
    transform, where = transform_of(model), device_of(model)
    found = [
        network.encoder(as_fields(transform.forward(maps.values[some])).to(where)).cpu().numpy()
        for some in batches(len(maps), BATCH)
    ]
    about = {"model": weights_sha256(model), "kind": model.card["kind"], **maps.about}
    return Latents(np.concatenate(found), maps.simulation, maps.parameters, about)


@torch.no_grad()
def decode(
    model: Model,
    latent: Float,
    *,
    seed: int = 0,
    numbers: NDArray[np.int64] | None = None,
    calls: int = CALLS,
    solver: str = "euler",
) -> Float:
    """Decode latents (N, C, h, w) as maps (N, n, n), in the units of the training's maps.

    Map i starts from the noise of (seed, numbers[i]), by default of (seed, i): maps of one number
    share their noise. A VAE has none, and gives its mean.
    """
    network: Any = model.network
    transform, where = transform_of(model), device_of(model)
    factor = int(network.size.factor)
    if numbers is None:
        numbers = np.arange(len(latent))
    found = []
    for some in batches(len(latent), BATCH):
        told = torch.from_numpy(np.ascontiguousarray(latent[some])).to(where)
        if model.card["kind"] == "vae":
            made = network.decode(told)
        else:
            edge = factor * latent.shape[-1]
            noise = np.stack([white(seed, int(i), edge) for i in numbers[some]])
            made = flow(network.velocity, as_fields(noise).to(where), told, calls, solver)
        found.append(transform.inverse(made[:, 0].cpu().numpy()).astype(np.float32))
    return np.concatenate(found)


def flow(
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor],
    noise: Tensor,
    latent: Tensor,
    calls: int,
    solver: str = "euler",
) -> Tensor:
    """Return the field that a velocity leads to from noise (B, 1, n, n), in equal steps of time.

    Each stage asks at its own time. Heun takes two calls a step, so that it makes half as many;
    adaptive chooses its times by the errors of all B fields, and how many they are.
    """
    steps = -(-calls // 2) if solver == "heun" else calls
    one = torch.ones(1, device=noise.device)

    def at(x: Tensor, t: float) -> Tensor:
        return velocity(x, t * one, latent)

    if solver == "adaptive":
        return adaptive(at, noise).x
    times = np.linspace(0.0, 1.0, steps + 1).tolist()
    return (heun if solver == "heun" else euler)(at, noise, times)


def as_fields(values: NDArray[Any]) -> Tensor:
    """Return (N, n, n) as networks take it, float32 (N, 1, n, n)."""
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))[:, None]


def white(seed: int, number: int, edge: int) -> Float:
    """Return white noise (edge, edge), a function of the seed and the number alone."""
    return np.random.default_rng([seed, number]).standard_normal((edge, edge), dtype=np.float32)


def save_latents(path: Path, latents: Latents) -> None:
    """Write a new file of latents. Raises BadInput where that cannot be."""
    if path.exists():
        raise BadInput(f"{path}: exists already; choose another name or remove it first")
    tensors = {name: np.ascontiguousarray(getattr(latents, name)) for name in KEYS}
    data = save(tensors, metadata={"bigbox": json.dumps(latents.about)})
    with explained(path, len(data)):
        DISK.write_atomic(path, data)


def load_latents(path: Path, model: Model, folder: Path) -> Latents:
    """Read latents. Raises BadInput for a damaged file, or the latents of another model."""
    try:
        with safe_open(path, "np") as file:
            values = [file.get_tensor(name) for name in KEYS]
            about = json.loads(file.metadata()["bigbox"])
    except FileNotFoundError:
        raise BadInput(f"{path}: is not there; `bigbox cosmoflow encode` makes it") from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: are no latents, or damaged ({error}); encode again") from None
    mine = weights_sha256(model)
    if about.get("model") != mine:
        raise BadInput(
            f"{path}: latents of model {str(about.get('model'))[:12]}, not of {folder} "
            f"({mine[:12]}); decode with the model that encoded, or encode again"
        )
    latent, simulation, parameters = values
    return Latents(latent, simulation, parameters, about)
