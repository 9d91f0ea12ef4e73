"""A region of a box, painted by itself: the bytes of the whole box's painting, whatever follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigbox.painters.base import Painter
from bigbox.scheduler.region import Region, RegionError
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.recorded import painting_of
from bigbox.testing.exercised import worked
from bigbox.testing.painters import TrivialHaloes, TrivialOnHaloes, TrivialPainter
from bigbox.testing.ranks import paint_in_process, spec_of
from tests.boxes import new_box, scratch
from tests.reference.haloes import averaged
from tests.reference.joint import paint_jointly
from tests.reference.painting import paint_by_stages

SHAPE = (24, 18, 20)
ends = st.tuples(st.integers(-5, 23), st.integers(1, 18))


def cut(array: np.ndarray, region: Region) -> np.ndarray:
    """The region of a box, wrapped."""
    at = [
        (low + np.arange(extent)) % n
        for low, extent, n in zip(region.low, region.extent, array.shape[-3:], strict=True)
    ]
    return array[(..., *np.ix_(*at))]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    regions=st.lists(st.tuples(ends, ends, ends), min_size=1, max_size=3),
    joint=st.booleans(),
    on_haloes=st.booleans(),
    n_ranks=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_any_regions_one_after_the_other(regions, joint, on_haloes, n_ranks, seed) -> None:
    tiling = Tiling(SHAPE, 8, 2, halved=joint)
    kind = TrivialOnHaloes if on_haloes else TrivialPainter
    painter: Painter = kind(seed=1, box_shape=SHAPE, tile=8, steps=3 if joint else 0)
    haloes = TrivialHaloes(stride=6, batch=2, window=12) if on_haloes else None
    rng = np.random.default_rng(seed)
    with scratch() as folder:
        path, dm = new_box(folder, SHAPE, seed)
        spec = spec_of(painter, tiling, 1, haloes=haloes, edges=(8, 4))
        inputs = averaged(dm, haloes) if haloes else dm
        if joint:
            truth = paint_jointly(inputs, tiling, painter)
        else:
            truth = paint_by_stages(inputs, tiling, painter, "levels")
        painted = np.zeros(SHAPE, bool)
        least = tiling.size
        for (x, nx), (y, ny), (z, nz) in regions:
            region = Region((x, y, z), (nx, ny, nz))
            paint_in_process(path, replace(spec, region=region), n_ranks=n_ranks, rng=rng)
            tb = Box.open(path).array("tb")[...]
            assert cut(tb, region).tobytes() == cut(truth, region).tobytes()
            painted |= ~np.isnan(tb)
            assert tb[painted].tobytes() == truth[painted].tobytes(), "nothing is lost"
            least = min(least, int(painting_of(Box.open(path)).state.done[0].sum()))
        paint_in_process(path, spec, n_ranks=n_ranks, rng=rng)
        assert Box.open(path).array("tb")[...].tobytes() == truth.tobytes()
        worked(least < tiling.size)


@pytest.mark.parametrize(
    ("text", "low", "extent"),
    [
        ("0:8,-4:4,5:6", (0, -4, 5), (8, 8, 1)),
        ("0:1.5,0.5:1,1:2 Mpc/h", (0, 5, 10), (15, 5, 10)),
        ("0.01:0.3,0:0.31,0:0.1Mpc/h", (0, 0, 0), (3, 4, 1)),
    ],
)
def test_reading(text: str, low: tuple, extent: tuple) -> None:
    assert Region.read(text, Tiling(SHAPE, 8, 2), 0.1) == Region(low, extent)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0:8,0:8", "not understood"),
        ("0:8,0:8,0-8", "not understood"),
        ("0:8,8:8,0:8", "0 voxels on axis y, must be 1 to 18"),
        ("0:25,0:8,0:8", "25 voxels on axis x, must be 1 to 24"),
    ],
)
def test_what_is_no_region_is_refused(text: str, why: str) -> None:
    with pytest.raises(RegionError, match=why):
        Region.read(text, Tiling(SHAPE, 8, 2), 0.1)
