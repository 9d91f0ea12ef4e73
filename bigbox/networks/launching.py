"""Find the Triton kernels of the networks, and launch them, or only have them compiled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

_COMPILING = ContextVar("_COMPILING", default=False)


@cache
def kernels() -> ModuleType | None:
    """Return the Triton kernels, None where Triton is not installed."""
    if find_spec("triton") is None:
        return None
    from bigbox.networks import triton_kernels

    return triton_kernels


def compiling() -> bool:
    """Whether launches only have their kernels compiled."""
    return _COMPILING.get()


@contextmanager
def compile_only() -> Iterator[None]:
    """Have kernels compiled side by side, not launched: results within are garbage.

    One after the other those of a network would take half a minute where none is in Triton's cache.
    """
    if kernels() is None or not torch.cuda.is_available():
        yield
        return
    try:
        from triton.runtime._async_compile import AsyncCompileMode
    except ImportError:  # another version: then they are compiled when they are launched
        yield
        return
    token = _COMPILING.set(True)
    try:
        threads = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(threads) as pool, AsyncCompileMode(pool, ignore_errors=True):
            yield
    finally:
        _COMPILING.reset(token)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Launch a kernel, or have it compiled only (`compile_only`)."""
    if not compiling():
        kernel[grid](*arguments, **constants)
        return
    with suppress(Exception):  # what cannot be compiled says so when it is launched
        kernel.warmup(*arguments, grid=grid, **constants)
