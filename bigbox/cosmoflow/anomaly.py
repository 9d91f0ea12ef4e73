"""Tell maps of another kind from those that a model knows: warm dark matter, for example.

Four scores; none has seen a strange map:

    summary    distance of the C numbers from those of the training, in their own covariance
    latent     the same for the rms of each channel over the map, beside its mean
    velocity   error of the velocity, over times and noise that are the same for all maps: lower
               where a map is smoother than those that the model knows
    spectrum   log of the power of the decoded map over that of the map, at the larger wave numbers:
               a model gives back the fine structure that it knows

A score is worth the share of pairs, one map of each kind, in which the strange one has more (the
area under the curve): 0.5 is chance, 0 and 1 tell all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from bigbox.cosmoflow.coding import (
    BATCH,
    Latents,
    as_fields,
    decode,
    device_of,
    encode,
    transform_of,
    white,
)
from bigbox.cosmoflow.loss import between, velocity_error
from bigbox.cosmoflow.maps import Maps, Split, batches
from bigbox.cosmoflow.spectra import Bins, contrast
from bigbox.networks.model import Model
from bigbox.simulate.run import say

TIMES = (0.3, 0.5, 0.7, 0.85, 0.95)
Float = NDArray[np.float64]


def anomalies(
    model: Model, known: Maps, strange: Maps, count: int, calls: int, seed: int
) -> dict[str, Any]:
    """Score maps of the test and strange ones, `count` of each: JSON values.

    known: the maps that the model was trained on, of which those of the training set the scale.
    """
    split = Split.of_card(model.card)
    reference = encode(model, known.of(split.training).first(4 * count))
    parts = {"known": known.of(split.test).first(count), "strange": strange.first(count)}
    scores: dict[str, dict[str, Float]] = {name: {} for name in parts}
    spectra = {}
    for name, maps in parts.items():
        latents = encode(model, maps)
        scores[name]["summary"] = distance(reference.summary, latents.summary)
        scores[name]["latent"] = distance(_shape(reference), _shape(latents))
        scores[name]["velocity"] = velocity_errors(model, maps, latents, seed)
        bins = Bins(maps.edge, maps.side)
        made = decode(model, latents.latent, seed=seed, calls=calls)
        power = bins.power(contrast(maps.values, maps.values))
        decoded = bins.power(contrast(made, maps.values))
        high = bins.k > bins.nyquist / 2
        scores[name]["spectrum"] = np.log(decoded[:, high] / power[:, high]).mean(1)
        spectra[name] = {"truth": power.mean(0).tolist(), "decoded": decoded.mean(0).tolist()}
        say(f"{name}: {len(maps)} maps scored")
    found = {
        score: {
            "area": area(scores["known"][score], scores["strange"][score]),
            "known": scores["known"][score].tolist(),
            "strange": scores["strange"][score].tolist(),
        }
        for score in scores["known"]
    }
    return {
        "k": bins.k.tolist(),
        "maps": {name: len(one) for name, one in parts.items()},
        "about": {name: one.about for name, one in parts.items()},
        "scores": found,
        "spectra": spectra,
    }


def area(known: Float, strange: Float) -> float:
    """Return the share of pairs in which the strange one has more, ties half."""
    ranks = rankdata(np.concatenate([known, strange]))
    total = ranks[len(known) :].sum() - len(strange) * (len(strange) + 1) / 2
    return float(total / (len(known) * len(strange)))


def distance(reference: NDArray[Any], values: NDArray[Any]) -> Float:
    """Return the Mahalanobis distance of rows (N, D) from the reference's rows."""
    mean = reference.mean(0, dtype=np.float64)
    covariance = np.atleast_2d(np.cov(reference.T.astype(np.float64)))
    covariance += 1e-9 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    off = values - mean
    return np.sqrt(np.einsum("nd,de,ne->n", off, np.linalg.inv(covariance), off))


def _shape(latents: Latents) -> NDArray[Any]:
    """Return mean and log rms of each channel over its map, (N, 2 C)."""
    rms = latents.latent.std((2, 3)).clip(1e-9)
    return np.concatenate([latents.summary, np.log(rms)], axis=1)


@torch.no_grad()
def velocity_errors(model: Model, maps: Maps, latents: Latents, seed: int) -> Float:
    """Return the mean squared error of the velocity of each map, over TIMES, (N,)."""
    network: Any = model.network
    transform, where = transform_of(model), device_of(model)
    noise = as_fields(white(seed, 0, maps.edge)[None]).to(where)
    found = []
    for some in batches(len(maps), BATCH):
        x1 = as_fields(transform.forward(np.asarray(maps.values[some]))).to(where)
        told = torch.from_numpy(latents.latent[some]).to(where)
        x0 = noise.expand_as(x1)
        each = []
        for time in TIMES:
            t = torch.full((len(x1),), time, device=where)
            each.append(velocity_error(network.velocity(between(x0, x1, t), t, told), x0, x1))
        found.append(torch.stack(each).mean(0).cpu().double().numpy())
    return np.concatenate(found)
