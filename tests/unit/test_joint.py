"""Tiles painted together, step by step, against a slow, obvious reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    streams=st.sampled_from([(1, 1), (2, 1), (3, 3)]),
    seed=st.integers(0, 2**31),
)
def test_any_order_gives_the_bytes_of_the_reference(
    shape, margin, edge, n_ranks, batch, steps, memory, streams, seed
) -> None:
    tiling = Tiling(shape, 8, 2 * margin, halved=True)
    slots = dict(zip(("streams", "full_speed_streams"), streams, strict=True))
    painter = TrivialPainter(seed=1, box_shape=shape, tile=8, steps=steps, **slots)
    with scratch() as folder:
        path, dm = new_box(folder, shape, seed)
        paint_in_process(
            path,
            spec_of(painter, tiling, edge, batch=batch),
            n_ranks=n_ranks,
            rng=np.random.default_rng(seed),
            limits=replace(LIMITS, latent_bytes=memory),
        )
        tb = Box.open(path).array("tb")[...]
        assert tb.tobytes() == paint_jointly(dm, tiling, painter).tobytes()
        assert not (path / "ledger" / "field").exists()
        worked(tiling.size > 1)
