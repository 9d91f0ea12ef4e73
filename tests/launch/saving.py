"""`bigbox` with ranks that save the noisy field every half second in the place of two minutes:

    python -m tests.launch.saving paint BOX [options]

Runs of the kill tests last for seconds: with the pause of the product they would never save.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from bigbox import cli
from bigbox.engine import run
from bigbox.engine.limits import Limits, limits_of

SECONDS = 0.5


def often(latent_gb: float | None) -> Limits:
    """Return the limits of a run, with a short pause between saves."""
    return replace(limits_of(latent_gb), seconds_between_saves=SECONDS)


if __name__ == "__main__":
    run.limits_of = often
    sys.exit(cli.main(sys.argv[1:]))
