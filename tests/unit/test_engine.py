"""The engine against a slow, obvious reference: one array, one mask, tile after tile by stages."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigbox.engine import run
from bigbox.engine.options import PaintOptions
from bigbox.engine.overlaps import Overlaps, Slab, packed
from bigbox.engine.transport import Kind, Message
from bigbox.painters.base import TileBatch
from bigbox.scheduler.grid import triple
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box
from bigbox.store.painting import Painting
from bigbox.testing.exercised import worked
from bigbox.testing.painters import TrivialPainter
from bigbox.testing.ranks import LIMITS, paint_in_process, spec_of
from bigbox.testing.strategies import PERIODIC, tilings
from tests.boxes import new_box, scratch
from tests.reference.painting import paint_by_stages


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    tiling=tilings(tile=(7, 8), overlap=(1, 3), periodic=PERIODIC, largest=26, tiles=(1, 36)),
    edge=st.sampled_from([1, 2]),
    n_ranks=st.integers(1, 5),
    batch=st.sampled_from([1, 3, 8]),
    colouring=st.sampled_from(["levels", "paper"]),
    latents=st.sampled_from([0, 2]),
    memory=st.sampled_from([0, 4000, 1 << 20]),
    streams=st.sampled_from([(1, 1), (2, 1), (3, 3)]),
    grid=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**31),
)
def test_any_order_gives_the_bytes_of_the_reference(
    tiling, edge, n_ranks, batch, colouring, latents, memory, streams, grid, seed
) -> None:
    shape = tiling.shape
    slots = dict(zip(("streams", "full_speed_streams"), streams, strict=True))
    slots |= {"latents": latents, "grid": grid}
    painter = TrivialPainter(seed=1, box_shape=shape, tile=tiling.tile, **slots)
    with scratch() as folder:
        path, dm = new_box(folder, triple(grid * n for n in shape), seed)
        paint_in_process(
            path,
            spec_of(painter, tiling, edge, batch=batch, colouring=colouring),
            n_ranks=n_ranks,
            rng=np.random.default_rng(seed),
            limits=replace(LIMITS, overlap_bytes=memory),
        )
        tb = Box.open(path).array("tb")[...]
        sampled = dm[(slice(None, None, grid),) * 3]
        assert tb.tobytes() == paint_by_stages(sampled, tiling, painter, colouring).tobytes()
        left = [f for f in (path / "latents" / "steps").rglob("*") if f.name != "zarr.json"]
        assert not [f for f in left if f.is_file()], "step latents that nobody needs any more"
        worked(tiling.size > 1)


@pytest.mark.parametrize("parallel", [1, 2])
def test_batches_side_by_side_in_threads(
    parallel: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches in the painter at a time, as on a GPU or two cores: the same bytes, no time
    counted twice."""
    shape = (40, 24, 31)
    path, dm = new_box(str(tmp_path), shape, 5)
    slots = {"streams": 2, "full_speed_streams": parallel}
    painter = TrivialPainter(seed=1, box_shape=shape, tile=8, seconds_per_tile=0.004, **slots)
    at_work, most = set(), [0]

    class Watched(TrivialPainter):
        def paint(self, batch: TileBatch) -> np.ndarray:
            at_work.add(threading.get_ident())
            most[0] = max(most[0], len(at_work))
            painted = super().paint(batch)
            at_work.discard(threading.get_ident())
            return painted

    monkeypatch.setattr(PaintOptions, "painter_of", lambda *_: Watched(**vars(painter)))
    how = {"tile": 8, "overlap": 2, "overlap_method": "conditioned"}
    options = PaintOptions(path, painter="trivial", batch=3, **how, quiet=True)
    report = run.paint(options)
    assert most[0] == 2 and 0 < report["busy"] <= 1
    tiling = Tiling(shape, 8, 2)
    assert report["tiles"] == tiling.size
    tb = Box.open(path).array("tb")[...]
    assert tb.tobytes() == paint_by_stages(dm, tiling, painter, "levels").tobytes()


def test_a_ring_of_two_tiles_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tile knows slabs at both faces of the other, which need not be durable."""
    path, dm = new_box(str(tmp_path), (12, 12, 12), 5)
    painter = TrivialPainter(seed=1, box_shape=(12, 12, 12), tile=8)
    monkeypatch.setattr(PaintOptions, "painter_of", lambda *_: painter)

    def unread(self: Painting, tile: int) -> np.ndarray:
        raise AssertionError(f"tile {tile} is read back")

    monkeypatch.setattr(Painting, "read_fields", unread)
    how = {"tile": 8, "overlap": 1, "overlap_method": "conditioned"}
    run.paint(PaintOptions(path, painter="trivial", batch=1, **how, quiet=True))
    tb = Box.open(path).array("tb")[...]
    tiling = Tiling((12, 12, 12), 8, 1)
    assert tb.tobytes() == paint_by_stages(dm, tiling, painter, "levels").tobytes()


def test_the_reference_is_the_same_for_both_colourings() -> None:
    tiling = Tiling((20, 15, 26), 8, 2)
    painter = TrivialPainter(seed=1, box_shape=tiling.shape, tile=8)
    dm = np.random.default_rng(0).lognormal(size=tiling.shape).astype(np.float32)
    levels, paper = (paint_by_stages(dm, tiling, painter, c) for c in ("levels", "paper"))
    assert levels.tobytes() == paper.tobytes()


@pytest.mark.parametrize("kind", list(Kind))
def test_messages_survive_the_way(kind: Kind) -> None:
    rng = np.random.default_rng(3)
    slabs = [
        Slab(7, 0, 1, rng.random((2, 3, 8, 8), np.float32)),
        Slab(9, 2, 0, rng.random((2, 8, 8, 2), np.float32)),
    ]
    overlaps = Overlaps(Tiling((20, 20, 20), 8, 3), 2, 0, lambda tile: np.empty(0))
    shapes = {(s.tile, s.axis, s.side): s.data.shape for s in slabs}
    overlaps.slab_shape = lambda *name: shapes[name]
    message = Message(kind, 2, np.array([7, 9, 2**40]), packed(slabs))
    back = Message.decode(message.encode())
    assert (back.kind, back.task, back.chunks.tolist()) == (kind, 2, [7, 9, 2**40])
    for sent, got in zip(slabs, overlaps.unpacked(back.parcel), strict=True):
        assert (sent.tile, sent.axis, sent.side) == (got.tile, got.axis, got.side)
        np.testing.assert_array_equal(sent.data, got.data)
    nothing = Message.decode(Message(kind, parcel=packed([])).encode())
    assert not len(nothing.chunks) and not overlaps.unpacked(nothing.parcel)
