"""Tiles painted together, step by step, against a slow, obvious reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigbox.scheduler.grid import triple
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.testing.exercised import worked
from bigbox.testing.painters import TrivialPainter
from bigbox.testing.ranks import LIMITS, paint_in_process, spec_of
from tests.boxes import new_box, scratch
from tests.reference.joint import paint_jointly


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(*[st.integers(8, 21)] * 3),
    margin=st.integers(0, 2),
    edge=st.sampled_from([1, 2]),
    n_ranks=st.integers(1, 5),
    batch=st.sampled_from([1, 3, 8]),
    steps=st.integers(1, 5),
    memory=st.sampled_from([0, 4000, 1 << 20]),
    between=st.sampled_from([1e9, 1e9, 0]),
    streams=st.sampled_from([(1, 1), (2, 1), (3, 3)]),
    grid=st.sampled_from([1, 2]),
    kept=st.sampled_from([0, 3, 1000]),
    seed=st.integers(0, 2**31),
)
def test_any_order_gives_the_bytes_of_the_reference(
    shape, margin, edge, n_ranks, batch, steps, memory, between, streams, grid, kept, seed
) -> None:
    tiling = Tiling(shape, 8, 2 * margin, halved=True)
    slots = dict(zip(("streams", "full_speed_streams"), streams, strict=True))
    slots |= {"steps": steps, "grid": grid, "most_kept": kept}
    painter = TrivialPainter(seed=1, box_shape=shape, tile=8, **slots)
    with scratch() as folder:
        path, dm = new_box(folder, triple(grid * n for n in shape), seed)
        paint_in_process(
            path,
            spec_of(painter, tiling, edge, batch=batch),
            n_ranks=n_ranks,
            rng=np.random.default_rng(seed),
            limits=replace(LIMITS, latent_bytes=memory, seconds_between_saves=between),
        )
        tb = Box.open(path).array("tb")[...]
        sampled = dm[(slice(None, None, grid),) * 3]
        assert tb.tobytes() == paint_jointly(sampled, tiling, painter).tobytes()
        assert not (path / "ledger" / "field").exists()
        worked(tiling.size > 1)
