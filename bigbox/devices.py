"""Which device the word after --device means, and that torch can use it well."""

from __future__ import annotations

import ctypes

import torch

from bigbox.errors import BadInput

# mallopt's parameters (glibc's malloc.h), and what they are set to.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEPT = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 256 << 20, _M_TOP_PAD: 16 << 20}


def keep_freed_memory() -> None:
    """Has the process keep the memory that tensors of up to 32 MB on a CPU give back.

    Else glibc returns it to the system, which clears it page by page when the next layer asks for
    it: a tenth of the time of LODI, and 4,500 page faults a call. Does nothing with another libc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _KEPT.items():
            mallopt(parameter, value)


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
