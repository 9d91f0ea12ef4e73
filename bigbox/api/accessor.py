"""`box.bigbox`: what is known of a box, measured on it and drawn of it, on an xarray data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray

from bigbox.errors import BadInput

if TYPE_CHECKING:
    from astropy.cosmology import FLRW
    from astropy.units import Quantity
    from matplotlib.axes import Axes

    from bigbox.analysis.spectra.modes import Pair, Spectrum
    from bigbox.scheduler.tiling import Tiling

REST_FREQUENCY = 1420.405751768  # MHz, of the 21 cm line
# Relative difference of two box sizes that are still the same.
SAME_SIZE = 1e-4


@dataclass(frozen=True)
class Tiles:
    """The tiles that a box was painted in."""

    tiling: Tiling  # on the painting grid
    grid: int  # voxels of dm on an axis for one of the tiling's
    done: npt.NDArray[np.bool_]  # whether each tile is on the disk, in the order of its number

    @property
    def count(self) -> int:
        """How many there are."""
        return self.tiling.size

    def to_xarray(self) -> xarray.DataArray:
        """Return which tiles are done, over the tile's place on each axis."""
        shape = tuple(len(self.tiling.origins(axis)) for axis in range(3))
        dims = ("tile_x", "tile_y", "tile_z")
        return xarray.DataArray(self.done.reshape(shape), dims=dims, name="done")


@xarray.register_dataset_accessor("bigbox")  # type: ignore[no-untyped-call]
class BoxAccessor:
    """What a box knows and an xarray data set does not.

    >>> import bigbox
    >>> box = bigbox.open("small.zarr")
    >>> box.bigbox.box_size, box.bigbox.redshift
    ((6.25, 6.25, 6.25), 0.0)
    >>> box.bigbox.cosmology.name is None, float(box.bigbox.cosmology.Om0)
    (True, 0.3)
    """

    def __init__(self, box: xarray.Dataset) -> None:
        self._box = box

    def _told(self, name: str) -> Any:
        if name not in self._box.attrs:
            raise BadInput(f"data set: has no attribute {name}: is no box; open one: bigbox.open")
        return self._box.attrs[name]

    @property
    def box_size(self) -> tuple[float, float, float]:
        """Sides of the box, comoving Mpc/h."""
        x, y, z = map(float, self._told("box_size"))
        return x, y, z

    @property
    def voxel(self) -> float:
        """Side of a voxel of dm, comoving Mpc/h."""
        return float(self._told("voxel_size"))

    @property
    def redshift(self) -> float:
        """Redshift of the box."""
        return float(self._told("redshift"))

    @property
    def cosmology(self) -> FLRW:
        """The box's cosmology as astropy's; sigma8 and n_s are in its `meta`."""
        from bigbox.api.cosmology import to_astropy

        return to_astropy(self._told("cosmology"))

    @property
    def frequency(self) -> Quantity:
        """Observed frequency of the 21 cm line from the box's redshift, MHz."""
        from astropy import units

        return REST_FREQUENCY / (1 + self.redshift) * units.MHz

    @property
    def distance(self) -> Quantity:
        """Comoving distance to the box's redshift, Mpc (not Mpc/h)."""
        return self.cosmology.comoving_distance(self.redshift)

    @property
    def path(self) -> Path:
        """Where the box is. Raises BadInput for a data set that was made of one."""
        source = self._box.encoding.get("source")
        if source is None:
            raise BadInput("data set: does not know its box any more; open it anew: bigbox.open")
        realization = int(self._box.encoding.get("realization", 0))
        from bigbox.store.box import realization_path

        return realization_path(source, realization)

    @property
    def tiles(self) -> Tiles:
        """The tiles that tb was painted in, and which of them are done. Raises BadInput."""
        from bigbox.store.box import Box
        from bigbox.store.recorded import painting_of

        found = painting_of(Box.open(self.path))
        if found is None:
            raise BadInput(f"{self.path}: is not painted, so it has no tiles: bigbox.paint")
        return Tiles(found.layout.tiling, found.layout.grid, np.array(found.state.done[0], bool))

    def power(
        self,
        array: str | xarray.DataArray | None = None,
        *,
        edges: npt.ArrayLike | None = None,
        normalise: bool = False,
        memory: float = 1.0,
    ) -> Spectrum:
        """Return the power spectrum of an array, out of core.

        Parameters
        ----------
        array : Its name, or an array of this box's grid, as `box.halo[0]`. None: tb, else dm.
        edges : Of the bins of |k|, h/Mpc. None: width 2 pi / L, up to Nyquist.
        normalise : Spectrum of the field over its mean, (Mpc/h)^3, not of the field itself.
        memory : That the blocks in work may take, GiB.

        Raises
        ------
        BadInput
            A part of a box, which is not periodic; values that are not finite.

        Examples
        --------
        >>> import bigbox
        >>> spectrum = bigbox.open("small.zarr").bigbox.power("dm")
        >>> spectrum.to_xarray().power.dims
        ('k',)
        """
        from bigbox.analysis.spectra.power import power

        one = self._whole(self._usual() if array is None else array)
        unit = str(one.attrs.get("units", ""))
        return power(
            one.data,
            self.box_size,
            edges=edges,
            normalise=normalise,
            unit="" if unit == "1" else unit,
            memory=int(memory * 2**30),
        )

    def cross(
        self,
        other: str | xarray.Dataset | xarray.DataArray,
        array: str | xarray.DataArray | None = None,
        *,
        edges: npt.ArrayLike | None = None,
        memory: float = 1.0,
    ) -> Pair:
        """Return the spectra of two arrays over their means, their cross spectrum and r(k).

        Parameters
        ----------
        other : Another array of this box by its name, an array, or another box of the same size
            and grid, whose array of the same name is taken.
        array : Of this box. None: tb, else dm.
        edges, memory : As for `power`.

        Examples
        --------
        >>> import bigbox
        >>> box = bigbox.open("small.zarr")
        >>> float(box.bigbox.cross("dm", "dm").correlation[0].round(6))
        1.0
        """
        from bigbox.analysis.spectra.power import pair

        first = self._whole(self._usual() if array is None else array)
        if isinstance(other, xarray.Dataset):
            size = BoxAccessor(other).box_size
            if not np.allclose(size, self.box_size, rtol=SAME_SIZE):
                raise BadInput(f"other box: is {size} Mpc/h, this one {self.box_size}")
            other = BoxAccessor(other)._whole(str(first.name))
        second = self._whole(other)
        size = self.box_size
        memory_bytes = int(memory * 2**30)
        return pair(first.data, second.data, size, edges=edges, normalise=True, memory=memory_bytes)

    def plot(
        self,
        array: str | None = None,
        ax: Axes | None = None,
        *,
        axis: str = "z",
        at: float | None = None,
        thickness: float | None = None,
        **more: Any,
    ) -> Axes:
        """Draw the mean of an array over a slab of the box; return the axes, new ones if None.

        Parameters
        ----------
        array : Its name, or "halo 2" for a mass bin. None: tb, else dm.
        axis, at, thickness : Across which the slab is cut, its middle (the box's) and thickness
            (one voxel), Mpc/h.
        more : As for `Axes.imshow`.
        """
        from bigbox.api.plot import plot

        name = array or self._usual()
        picture = plot(self.path, array=[name.split()[0]], axis=axis, at=at, thickness=thickness)
        return picture.plot(ax, name, **more)

    def _usual(self) -> str:
        return "tb" if "tb" in self._box else "dm" if "dm" in self._box else "halo"

    def _whole(self, array: str | xarray.DataArray) -> xarray.DataArray:
        """Return an array over the whole box, (X, Y, Z). Raises BadInput."""
        if isinstance(array, str):
            if array not in self._box:
                names: Sequence[str] = sorted(map(str, self._box.data_vars))
                raise BadInput(f"data set: has no {array!r}, but {', '.join(names)}")
            array = self._box[array]
        if array.ndim != 3:
            raise BadInput(f"{array.name}: has dimensions {array.dims}; choose one channel of it")
        count = [round(side / self.voxel) for side in self.box_size]
        steps = {n / m for n, m in zip(count, array.shape, strict=True)}
        if len(steps) > 1 or steps.pop() % 1:
            raise BadInput(
                f"{array.name}: has {array.shape} of the box's {tuple(count)} voxels: a part is "
                "not periodic and has no such spectrum; take the whole box"
            )
        return array
