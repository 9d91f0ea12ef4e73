"""`xarray.open_dataset(box, engine="bigbox")`: the entry point of the group xarray.backends.

xarray imports this module whenever it looks for an engine, so all else is imported when a box is
opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray
from xarray.backends import BackendEntrypoint


class BigboxBackend(BackendEntrypoint):
    """Open boxes as `bigbox.open` does."""

    description = "Open boxes of dark matter, haloes and 21 cm brightness temperature"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "realization", "grid")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        realization: int = 0,
        grid: str = "dm",
    ) -> xarray.Dataset:
        """Open a box; the other arguments are those of `bigbox.open`."""
        from bigbox.api.opening import open as open_box

        box: xarray.Dataset = open_box(filename_or_obj, realization=realization, grid=grid)
        named = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return box.drop_vars(named, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether it is a box."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        from bigbox.store.metadata import is_box

        return is_box(Path(filename_or_obj))
