"""Measure how well a velocity leads from noise to a field (flow matching, eqs. 2 and 3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from bigbox.cosmoflow.networks import Flow


def between(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Return x_t = t x1 + (1 - t) x0, of noise x0 and field x1 at times t (B,)."""
    time = t[(..., *(None,) * (x1.dim() - 1))]
    return time * x1 + (1 - time) * x0


def velocity_error(output: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    """Return the mean squared error of each field's velocity, (B,): that wanted is x1 - x0."""
    return functional.mse_loss(output.float(), x1 - x0, reduction="none").flatten(1).mean(1)


class FlowTask(nn.Module):
    """Hold the networks and their loss: one pass trains both, and each gradient counts once."""

    def __init__(self, network: Flow):
        super().__init__()
        self.network = network

    def forward(self, x1: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """Return the mean squared error of the velocity; x1, x0 (B, 1, n, ...), t (B,) uniform."""
        output = self.network.velocity(between(x0, x1, t), t, self.network.encoder(x1))
        return velocity_error(output, x0, x1).mean()
