"""Exchange one channel of a latent, and see at which scales P(k) changes.

Pairs of maps are encoded; of the first one's latent one channel is led to the second one's in a
few steps, the others stay, and all are decoded from the same noise. The change of ln P(k) at the
end, as an rms over the pairs, tells by channel where it acts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.cosmoflow.coding import decode, encode
from bigbox.cosmoflow.maps import Maps
from bigbox.cosmoflow.spectra import Bins, contrast
from bigbox.errors import BadInput
from bigbox.networks.model import Model
from bigbox.simulate.run import say

HALF = 0.5  # of the summed change: the scales between the quartiles around it are a channel's


def interpolate(
    model: Model, maps: Maps, pairs: int, steps: int, calls: int, seed: int
) -> dict[str, Any]:
    """Interpolate the latents of pairs of maps, channel by channel and all at once: JSON values.

    Raises BadInput for too few maps.
    """
    first, second = _pairs(maps, pairs)
    a, b = encode(model, first).latent, encode(model, second).latent
    bins, numbers = Bins(maps.edge, maps.side), np.arange(pairs)

    def spectra(latent: NDArray[np.float32]) -> NDArray[np.float64]:
        made = decode(model, latent, seed=seed, numbers=numbers, calls=calls)
        return np.log(bins.power(contrast(made, first.values)).clip(1e-300))

    begun, ended = spectra(a), spectra(b)
    whole = _rms(ended - begun)
    channels, shown = [], decode(model, a[:1], seed=seed, numbers=numbers[:1], calls=calls)
    images = [shown[0].tolist()]
    for channel in range(a.shape[1]):
        curve, at = [], np.zeros_like(a)
        for share in np.linspace(0, 1, steps + 1)[1:]:
            at = a.copy()
            at[:, channel] += share * (b[:, channel] - a[:, channel])
            curve.append(_rms(spectra(at) - begun).tolist())
        image = decode(model, at[:1], seed=seed, numbers=numbers[:1], calls=calls)[0]
        images.append(image.tolist())
        change = np.array(curve[-1])
        channels.append(
            {"rms": curve, "range": _range(bins.k, change), "of all": _share(change, whole)}
        )
        say(f"channel {channel}: {channels[-1]['range']}")
    return {
        "k": bins.k.tolist(),
        "pairs": pairs,
        "shares": np.linspace(0, 1, steps + 1)[1:].tolist(),
        "all": whole.tolist(),
        "channels": channels,
        "images": images,
        "side": maps.side,
    }


def _pairs(maps: Maps, pairs: int) -> tuple[Maps, Maps]:
    """Return maps and partners of other simulations, as many each."""
    if len(np.unique(maps.simulation)) < 2 or pairs > len(maps) // 2:
        raise BadInput(
            f"{maps.name}: {len(maps)} maps of the test are too few for {pairs} pairs of different "
            "simulations; give --pairs fewer, or more maps"
        )
    chosen = maps.first(2 * pairs)
    return chosen.take(np.arange(pairs)), chosen.take(np.arange(pairs, 2 * pairs))


def _rms(change: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt((change**2).mean(0))


def _share(change: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    """Return the change of P(k) over that of all channels, over all bins."""
    return float(change.sum() / whole.sum())


def _range(k: NDArray[np.float64], change: NDArray[np.float64]) -> list[float]:
    """Return k below which a quarter, a half and three quarters of the change lie, per ln k."""
    weight = np.cumsum(change**2 * np.gradient(np.log(k)))
    return [float(np.interp(q, weight / weight[-1], k)) for q in (0.25, HALF, 0.75)]
