"""Haloes painted window by window by the engine, against a whole-box average in numpy."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bigbox.painters.trivial import TrivialHaloes, TrivialOnHaloes
from bigbox.store.box import Box
from scheduler.tiling import Tiling, TilingError
from tests.faults.ranks import paint_in_process
from tests.unit.test_engine import reference

# Shrinking a whole painting takes minutes and tells little.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


def averaged(dm: np.ndarray, painter: TrivialHaloes) -> np.ndarray:
    """rho_h of the whole box, float32 (4, ...): one window after the other into whole arrays."""
    shape, w, m = dm.shape, painter.window, painter.margin
    sums = np.zeros((painter.channels, *shape), np.int64)
    weights = np.zeros(shape, np.int64)
    x, y, z = np.ix_(*[painter.weights] * 3)
    counts = [-(-n // painter.stride) for n in shape]
    for index in np.ndindex(*counts):
        origin = [i * n // c for i, n, c in zip(index, shape, counts, strict=True)]
        wide = [(o - m + np.arange(w + 2 * m)) % n for o, n in zip(origin, shape, strict=True)]
        at = np.ix_(*[(o + np.arange(w)) % n for o, n in zip(origin, shape, strict=True)])
        logs = painter.predict(dm[np.ix_(*wide)][None])[0]
        fixed = np.rint(logs.astype(np.float64) * 2**24).astype(np.int64) * (x * y * z)
        sums[(slice(None), *at)] += fixed  # a window is never wider than the box: no voxel twice
        weights[at] += x * y * z
    mean = sums / (weights * 2.0**24)
    return np.where(mean >= 9.5, 10.0**mean, 0.0).astype(np.float32)


def new_box(folder: str | Path, shape: tuple[int, int, int], seed: int) -> tuple[Path, np.ndarray]:
    path = Path(folder) / "box.zarr"
    box = Box.create(path, shape, box_size=[float(n) for n in shape], redshift=0.0)
    dm = np.random.default_rng(seed).lognormal(size=shape).astype(np.float32)
    box.create_array("dm")[...] = dm
    return path, dm


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(
    shape=st.tuples(*[st.integers(8, 22)] * 3),
    window=st.sampled_from([6, 8]),
    stride=st.integers(2, 6),
    taper=st.sampled_from([1, 3]),
    block=st.sampled_from([3, 4, 5]),
    shard_edge=st.sampled_from([1, 2]),
    edge=st.sampled_from([1, 2]),
    n_ranks=st.integers(1, 5),
    batch=st.sampled_from([1, 3, 8]),
    memory=st.sampled_from([0, 20000, 1 << 20]),
    seed=st.integers(0, 2**31),
)
def test_any_order_gives_the_bytes_of_the_reference(
    shape, window, stride, taper, block, shard_edge, edge, n_ranks, batch, memory, seed
) -> None:
    try:
        tiling = Tiling(shape, 7, 1)
    except TilingError:
        return  # a shape that no tiling closes
    painter = TrivialOnHaloes(seed=1, box_shape=shape, tile=tiling.tile)
    haloes = TrivialHaloes(stride=stride, window=window, batch=batch, taper=taper)
    with tempfile.TemporaryDirectory() as folder:
        path, dm = new_box(folder, shape, seed)
        paint_in_process(
            path,
            painter,
            tiling,
            edge,
            n_ranks=n_ranks,
            batch=batch,
            rng=np.random.default_rng(seed),
            haloes=haloes,
            block=block,
            shard_edge=shard_edge,
            sum_bytes=memory,
        )
        halo = averaged(dm, haloes)
        assert (halo == 0).any() and (halo > 0).any()
        box = Box.open(path)
        assert box.array("halo")[...].tobytes() == halo.tobytes()
        tb = reference(halo, tiling, painter, "levels")
        assert box.array("tb")[...].tobytes() == tb.tobytes()
