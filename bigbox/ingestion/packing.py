"""Packed and masked arrays, as the conventions of netCDF (CF) tell them by attributes.

    value = raw * scale_factor + add_offset        _Unsigned: raw integers are without sign
    missing where raw is _FillValue or missing_value, outside of valid_min .. valid_max or of
    valid_range, or netCDF's own fill value where that is the array's

https://cfconventions.org, sections 2.5.1 and 8.1; the fill values are those of netcdf.h.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput

# NC_FILL_FLOAT, NC_FILL_DOUBLE, and those of integers, by numpy's name of the type.
_NETCDF: dict[str, float] = {
    **{"f4": float(np.float32(9.9692099683868690e36)), "f8": 9.9692099683868690e36},
    **{"i1": -127, "i2": -32767, "i4": -2147483647, "i8": -9223372036854775806},
    **{"u1": 255, "u2": 65535, "u4": 4294967295, "u8": 18446744073709551614},
}


@dataclass(frozen=True)
class Packing:
    """How the values of an array are made of what is stored."""

    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()  # raw values that are none
    least: float = -math.inf  # raw
    most: float = math.inf
    unsigned: bool = False

    def dtype(self, raw: np.dtype[Any]) -> np.dtype[Any]:
        """Return the type of the values."""
        return raw if (self.scale, self.offset) == (1.0, 0.0) else np.dtype("f8")

    def absent(self, raw: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where there is no value."""
        raw = self._signed(raw)
        absent = np.zeros(raw.shape, bool)
        for value in self.missing:
            absent |= np.isnan(raw) if math.isnan(value) else raw == raw.dtype.type(value)
        if self.least > -math.inf:
            absent |= raw < self.least
        if self.most < math.inf:
            absent |= raw > self.most
        return absent

    def values(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return the values, in the type that `dtype` says."""
        raw = self._signed(raw)
        if self.dtype(raw.dtype) == raw.dtype:
            return raw
        return raw * np.float64(self.scale) + self.offset

    def _signed(self, raw: NDArray[Any]) -> NDArray[Any]:
        return raw.view(f"{raw.dtype.byteorder}u{raw.dtype.itemsize}") if self.unsigned else raw


def read_values(name: str, data: Any, region: Any) -> NDArray[Any]:
    """Read a region of a data set as its attributes say. BadInput where it holds no value."""
    packed = packing(name, data)
    raw = np.asarray(data[region])
    absent = packed.absent(raw)
    if absent.any():
        raise BadInput(
            f"{name}: holds {raw[absent][0]:g}, which its attributes (_FillValue, missing_value, "
            "valid_range) say is no value"
        )
    return packed.values(raw)


def packing(name: str, array: Any) -> Packing:
    """Read the packing of an array. Raises BadInput for an attribute that is no number."""
    known = dict(getattr(array, "attrs", {}))

    def number(key: str, default: float) -> float:
        return _numbers(name, key, known[key])[0] if key in known else default

    missing = [v for k in ("_FillValue", "missing_value") for v in _numbers(name, k, known.get(k))]
    dtype = np.dtype(array.dtype)
    of_netcdf = _NETCDF.get(f"{dtype.kind}{dtype.itemsize}")
    stored = getattr(array, "stored", array)
    fill = getattr(stored, "fillvalue", getattr(stored, "fill_value", None))
    # In zarr v2 xarray keeps _FillValue as the array's own fill value.
    of_xarray = "_ARRAY_DIMENSIONS" in known
    if fill is not None and of_xarray:
        missing.append(float(fill))
    elif fill is not None and of_netcdf is not None and fill == of_netcdf:
        missing.append(of_netcdf)
    least, most = number("valid_min", -math.inf), number("valid_max", math.inf)
    if "valid_range" in known:
        least, most = _numbers(name, "valid_range", known["valid_range"])
    unsigned = str(known.get("_Unsigned", "")).lower() == "true" and dtype.kind == "i"
    scale, offset = number("scale_factor", 1.0), number("add_offset", 0.0)
    if not (math.isfinite(scale) and math.isfinite(offset)) or scale == 0:
        raise BadInput(
            f"{name}: its scale_factor {scale} and add_offset {offset} cannot be applied; correct "
            "these attributes"
        )
    return Packing(scale, offset, tuple(dict.fromkeys(missing)), least, most, unsigned)


def _numbers(name: str, key: str, value: Any) -> list[float]:
    if value is None:
        return []
    try:
        if isinstance(value, str):  # zarr v3, by xarray: eight bytes in base64, or a word
            try:
                return [float(value)]
            except ValueError:
                return np.frombuffer(base64.b64decode(value, validate=True), "<f8").tolist()
        return np.asarray(value).astype(float).reshape(-1).tolist()
    except ValueError:
        raise BadInput(
            f"{name}: its attribute {key} is {value!r}, which is no number; correct or remove it"
        ) from None
