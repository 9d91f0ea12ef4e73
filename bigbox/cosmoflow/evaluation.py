"""Hold decoded maps of the test's simulations against the truth, and the VAE beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bigbox.cosmoflow.coding import as_fields, decode, device_of, encode, transform_of, white
from bigbox.cosmoflow.loss import between, velocity_error
from bigbox.cosmoflow.maps import Maps, Split, batches
from bigbox.cosmoflow.spectra import Bins, compare
from bigbox.networks.model import Model
from bigbox.simulate.run import say

LIMIT = 0.10  # of P(k), to half the Nyquist frequency
ABOVE = 1.0  # h/Mpc: from there on the flow is held against the VAE


def evaluate_maps(
    models: dict[str, Model],
    maps: Maps,
    count: int | None,
    calls: int,
    seed: int,
    solver: str = "euler",
) -> dict[str, Any]:
    """Decode maps of the test by each model, "flow" first, and compare: JSON values."""
    flow = models["flow"]
    test = maps.of(Split.of_card(flow.card).test).first(count)
    bins, shown = Bins(maps.edge, maps.side), [int(len(test) * share) for share in (0.2, 0.6)]
    found: dict[str, Any] = {
        "maps": len(test),
        "simulations": len(np.unique(test.simulation)),
        "calls": calls,
        "solver": solver,
        "side": maps.side,
        "nyquist": bins.nyquist,
        "images": {"truth": [test.values[i].tolist() for i in shown]},
        "models": {},
    }
    for name, model in models.items():
        latent = encode(model, test).latent
        made = decode(model, latent, seed=seed, calls=calls, solver=solver)
        found["models"][name] = compare(made, np.asarray(test.values), bins)
        found["images"][name] = [made[i].tolist() for i in shown]
        say(f"{name}: {len(test)} maps decoded")
    found["velocity error"] = velocity(flow, test, seed)
    found["checks"] = checks(found)
    return found


@torch.no_grad()
def velocity(model: Model, maps: Maps, seed: int) -> float:
    """Return the mean squared error of the velocity, times uniform, one for each map."""
    network: Any = model.network
    transform, where = transform_of(model), device_of(model)
    rng, total = np.random.default_rng([seed, 1]), 0.0
    times = (rng.permutation(len(maps)) + rng.random(len(maps))) / len(maps)
    for some in batches(len(maps), 16):
        x1 = as_fields(transform.forward(np.asarray(maps.values[some]))).to(where)
        numbers = range(some.start, some.stop)
        x0 = as_fields(np.stack([white(seed + 1, i, maps.edge) for i in numbers])).to(where)
        t = torch.from_numpy(times[some].astype(np.float32)).to(where)
        output = network.velocity(between(x0, x1, t), t, network.encoder(x1))
        total += float(velocity_error(output, x0, x1).sum())
    return total / len(maps)


def checks(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a useful model keeps: what is asked, what was found, and whether it is kept."""
    rows = found["models"]
    k, ratio = (np.array(rows["flow"][name]) for name in ("k", "ratio"))
    worst = float(np.abs(ratio[k <= found["nyquist"] / 2] - 1).max())
    made = [
        {
            "name": "P(k) over the truth's, to half the Nyquist frequency",
            "found": f"at most {100 * worst:.1f} % off",
            "allowed": f"{100 * LIMIT:.0f} %",
            "kept": worst <= LIMIT,
        }
    ]
    if "vae" in rows:
        high = k > ABOVE
        off = [np.abs(np.log(np.array(rows[name]["ratio"])[high])) for name in ("flow", "vae")]
        better = int((off[0] < off[1]).sum())
        made.append(
            {
                "name": f"P(k) nearer to the truth's than the VAE's, bins above {ABOVE:g} h/Mpc",
                "found": f"{better} of {int(high.sum())}",
                "allowed": "all",
                "kept": better == int(high.sum()),
            }
        )
    return made
