"""A compressed box on disk: latents as whole numbers, entropy-coded, and all that decoding needs.

    OUT/zarr.json           the box's geometry and cosmology, the model's checksum, the step
    OUT/latent/c/0/i/j/k    shards of int16 (C, 128^3), in chunks of (1, 32^3) as pcodec codes them

A latent is stored as the whole number nearest to latent / step, and read as that number times step.
Channel 0 is the mean density of a cell, log10(1 + mean / floor), which the decoded field has again;
the others are learned. pcodec (by numcodecs) codes a chunk in what the entropy of its numbers asks
for. A shard is written
by one process, whole, under a name that it only gets once it is whole: what has a name is done.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from bigbox.errors import BadInput, of_system
from bigbox.scheduler.grid import Cover, Slices, Triple, triple
from bigbox.store.cutouts import read_cutout
from bigbox.store.durable import DISK, explained
from bigbox.store.metadata import group_attributes, group_metadata, understood
from bigbox.store.shards import Float

FORMAT, VERSION = "bigbox-compressed", 1
CHUNK, SHARD = 32, 128  # latents on an axis
MISSING = -(2**15)  # what is read where a shard is missing; never a latent
CACHED = 64  # chunks that are kept, decoded
NAME = "latent"


class Compressed:
    """The latents of a box, whole or in the making."""

    def __init__(self, path: Path, attributes: Mapping[str, Any]) -> None:
        self.path, self.attributes = path, dict(attributes)
        self.shape: Triple = triple(map(int, attributes["shape"]))
        self.cell, self.channels = int(attributes["cell"]), int(attributes["channels"])
        self.steps, self.model = [*map(float, attributes["steps"])], str(attributes["model"])
        self.cells: Triple = triple(n // self.cell for n in self.shape)
        with _as_specified():
            self.array = zarr.open_array(path / NAME, mode="r+")
        self._axes = [Cover.regular(n, CHUNK) for n in self.cells]
        self._chunk = lru_cache(CACHED)(self._fetch)

    @classmethod
    def create(cls, path: Path, attributes: Mapping[str, Any]) -> Compressed:
        """Make an empty one.

        attributes: what a box says of itself, and model, cell, channels, steps.
        """
        from zarr.codecs import Crc32cCodec
        from zarr.codecs.numcodecs import PCodec

        cells = [int(n) // int(attributes["cell"]) for n in attributes["shape"]]
        channels = int(attributes["channels"])
        shard = [min(SHARD, -(-n // CHUNK) * CHUNK) for n in cells]
        with explained(path), _as_specified():
            path.mkdir(parents=True, exist_ok=True)
            zarr.create_array(
                path / NAME,
                shape=(channels, *cells),
                dtype="int16",
                chunks=(1, *(CHUNK,) * 3),
                shards=(channels, *shard),
                filters=None,
                serializer=PCodec(level=8),
                compressors=(Crc32cCodec(),),
                fill_value=MISSING,
                dimension_names=("channel", "x", "y", "z"),
                attributes={"long_name": "latent over step, rounded", "units": "1"},
                overwrite=True,
            )
            DISK.write_atomic(path / "zarr.json", group_metadata({**attributes, "complete": False}))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Compressed:
        """Open one, whole or not. Raises BadInput where there is none."""
        if not path.exists():
            raise BadInput(f"{path}: no such store; make one with: bigbox compress BOX {path}")
        attributes = group_attributes(path)
        if attributes.get("format") != FORMAT:
            raise BadInput(
                f"{path}: is no compressed box (no zarr v3 group with format {FORMAT!r}); make one"
                " with: bigbox compress BOX OUT"
            )
        if attributes.get("format_version") != VERSION:
            raise BadInput(
                f"{path}: format version {attributes.get('format_version')}, this bigbox reads"
                f" {VERSION}; use the bigbox that made it"
            )
        with understood(path / "zarr.json"):
            return cls(path, attributes)

    @property
    def shards(self) -> list[tuple[int, int, int]]:
        """Return where the shards are, in shards."""
        _, *edges = self.array.shards or ()
        counts = (-(-n // edge) for n, edge in zip(self.cells, edges, strict=True))
        return [triple(at) for at in np.ndindex(*counts)]

    def region(self, shard: Sequence[int]) -> Slices:
        """Return the latents of a shard."""
        _, *edges = self.array.shards or ()
        return triple(
            slice(i * edge, min((i + 1) * edge, n))
            for i, edge, n in zip(shard, edges, self.cells, strict=True)
        )

    def file(self, shard: Sequence[int]) -> Path:
        """Return the file of a shard: it is there once the shard is done."""
        return self.path / NAME / "c" / "0" / "/".join(map(str, shard))

    def write(self, shard: Sequence[int], values: np.ndarray) -> None:
        """Write a shard, int16 (C, ...), for good."""
        with explained(self.path), _as_specified():
            self.array[(slice(None), *self.region(shard))] = values
            with self.file(shard).open("rb") as file:
                os.fsync(file.fileno())

    def finish(self) -> None:
        """Note that all shards are there, their checksum, and the bits that a voxel takes."""
        digest = hashlib.sha256()
        for key in np.ndindex(self.channels, *(axis.count for axis in self._axes)):
            digest.update(np.ascontiguousarray(self._fetch(key), "<i2").tobytes())
        size = sum(self.file(shard).stat().st_size for shard in self.shards)
        self.attributes |= {
            "complete": True,
            "latent_sha256": digest.hexdigest(),
            "bytes": size,
            "bits_per_voxel": 8 * size / float(np.prod(self.shape)),
        }
        with explained(self.path):
            DISK.write_atomic(self.path / "zarr.json", group_metadata(self.attributes))

    def read(self, origin: Sequence[int], shape: Sequence[int]) -> Float:
        """Return latents, float32 (C, *shape), from any origin on, wrapped. Raises BadInput."""
        found = np.empty((self.channels, *shape), np.float32)
        for channel in range(self.channels):
            piece = lambda key, at, c=channel: self._chunk((c, *key))[at]  # noqa: E731
            found[channel] = read_cutout(piece, self._axes, (True,) * 3, origin, shape)
            found[channel] *= np.float32(self.steps[channel])
        return found

    def _fetch(self, key: tuple[int, ...]) -> np.ndarray:
        """Return a chunk of one channel, int16."""
        channel, *cell = map(int, key)
        at = triple(
            slice(i * CHUNK, min((i + 1) * CHUNK, n)) for i, n in zip(cell, self.cells, strict=True)
        )
        try:
            with _as_specified():
                values = np.asarray(self.array[(channel, *at)])
        except (ValueError, OSError, RuntimeError) as error:
            if (fault := of_system(error)) is not None:
                raise fault from error
            raise BadInput(
                f"{self.path}: chunk {key} of the latents is damaged ({error}); copy it again, or"
                " remove it and compress the box again"
            ) from error
        if (values == MISSING).any():
            raise BadInput(
                f"{self.path}: chunk {key} of the latents is missing; run bigbox compress again, it"
                " goes on"
            )
        return values


@contextmanager
def _as_specified() -> Iterator[None]:
    """Keep zarr from warning that pcodec is no codec of its specification."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Nn]umcodecs.*")
        yield
