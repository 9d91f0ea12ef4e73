"""Which device the word after --device means, and that torch can use it."""

from __future__ import annotations

import torch

from bigbox.errors import BadInput


def find_device(name: str) -> torch.device:
    """The device of that name; "auto": a GPU where there is one, else the CPU. Raises BadInput."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise BadInput(f"--device {name}: cannot be used ({why}); leave it out") from None
    return device
