"""Write an array as a FITS image, big-endian float32, of which the axes are in Mpc/h."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bigbox
from bigbox.blockwise import Region, read_block
from bigbox.errors import BadInput
from bigbox.export.blocks import for_each_block
from bigbox.export.npy import contiguous, write_at
from bigbox.store.box import Box

BLOCK = 2880  # bytes; every part of a FITS file is a whole number of them
KEPT = ("units", "long_name", "rescaled", "interpolated", "source")


def write_fits(work: Path, box: Box, arrays: Mapping[str, Any], memory: int) -> None:
    """Write the only array of `arrays`: NAXIS1 is the last axis, as FITS counts them."""
    ((name, array),) = arrays.items()
    header = _header(box, name, array).tostring(padding=True).encode("ascii")
    size = 4 * math.prod(array.shape)
    with open(work, "wb") as file:
        file.write(header)
        file.truncate(len(header) + -(-size // BLOCK) * BLOCK)
        file.flush()

        def copy(part: Region) -> None:
            block = read_block(array, part, box.place_of(name))
            for first, rows in contiguous(block, part, array.shape):
                write_at(file.fileno(), rows.astype(">f4"), len(header) + 4 * first)

        for_each_block(array, memory, copy)
        os.fsync(file.fileno())


def _header(box: Box, name: str, array: Any) -> Any:
    try:
        from astropy.io import fits
    except ImportError:
        raise BadInput("--to fits needs astropy: pip install 'bigbox[fits]'") from None
    header = fits.Header()
    header["SIMPLE"], header["BITPIX"], header["NAXIS"] = True, -32, array.ndim
    for axis, length in enumerate(reversed(array.shape), 1):
        header[f"NAXIS{axis}"] = int(length)
    step = box.step_of(array) * box.voxel
    for axis in range(1, 4):  # the first voxel's centre is half a voxel of dm from the corner
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = "zyx"[axis - 1].upper(), "Mpc/h"
        header[f"CRPIX{axis}"], header[f"CDELT{axis}"] = 1.0, step
        header[f"CRVAL{axis}"] = 0.5 * box.voxel
    header["BUNIT"] = str(array.attrs.get("units", ""))
    header["OBJECT"] = name
    header["REDSHIFT"] = box.redshift
    header["BOXSIZE"] = (box.box_size[0], "Mpc/h, first axis")
    header["ORIGIN"] = f"bigbox {bigbox.__version__}"
    for key, value in box.attributes["cosmology"].items():
        if isinstance(value, (int, float)):
            header[key.upper().replace("_", "")[:8]] = value
    for key in KEPT:
        if key in array.attrs:
            words = str(array.attrs[key]).translate(_PLAIN).encode("ascii", "replace").decode()
            header.add_comment(f"{key}: {words}")
    return header


_PLAIN = str.maketrans({"Ω": "Omega", "–": "-", "×": "x", "³": "^3"})
