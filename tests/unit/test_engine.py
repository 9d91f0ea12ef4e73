"""The engine against a slow, obvious reference: one array, one mask, tile after tile by stages."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigbox.engine import run
from bigbox.engine.begin import PaintOptions
from bigbox.engine.transport import Kind, Message, Slab, decode
from bigbox.painters.base import TileBatch
from bigbox.painters.trivial import TrivialPainter
from bigbox.scheduler.stages import stage as stage_of
from bigbox.scheduler.stages import stages as stage_count
from bigbox.scheduler.tiling import Tiling, TilingError
from bigbox.store.box import Box
from tests.faults.ranks import paint_in_process


def reference(dm: np.ndarray, tiling: Tiling, painter: TrivialPainter, colouring: str):
    """T_b as the paper's Algorithm 1 would build it, with no engine: float32, shape of the box.

    dm: the painter's input, over the box, or (channels, ...) over the box.
    """
    n, m = tiling.tile, painter.margin
    tb = np.zeros((painter.fields, *tiling.shape), np.float32)
    painted = np.zeros(tiling.shape, bool)
    tiles = np.arange(tiling.size)
    stage = stage_of(tiling, tiles, colouring)
    for s in range(stage_count(tiling, colouring)):
        new = []
        for tile in tiles[stage == s]:
            origin = tiling.origin(np.array([tile]))
            at = np.ix_(*((origin[0, a] + np.arange(n)) % tiling.shape[a] for a in range(3)))
            wide = [(origin[0, a] - m + np.arange(n + 2 * m)) % tiling.shape[a] for a in range(3)]
            mask = painted[at]
            known = np.where(mask, tb[(slice(None), *at)], np.float32(0))
            width = np.zeros((1, 3, 2), np.int64)
            for a in range(3):
                line = mask.all(axis=tuple({0, 1, 2} - {a}))
                width[0, a, 0] = np.argmin(line)
                width[0, a, 1] = np.argmin(line[::-1])
            batch = TileBatch(
                tiles=np.array([tile]),
                origin=origin,
                inputs=dm[(..., *np.ix_(*wide))].reshape(1, -1, *(n + 2 * m,) * 3),
                known=known[None],
                width=width,
            )
            new.append((at, mask, painter.paint(batch)[0]))
        for at, mask, fields in new:  # tiles of one stage do not see each other
            tb[(slice(None), *at)] = np.where(mask, tb[(slice(None), *at)], fields)
            painted[at] = True
    assert painted.all()
    return tb[0]


def new_box(folder: str, shape: tuple[int, int, int], seed: int) -> tuple[Path, np.ndarray]:
    path = Path(folder) / "box.zarr"
    box = Box.create(path, shape, box_size=[float(n) for n in shape], redshift=0.0)
    dm = np.random.default_rng(seed).lognormal(size=shape).astype(np.float32)
    box.create_array("dm")[...] = dm
    return path, dm


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.tuples(*[st.integers(9, 26)] * 3),
    overlap=st.integers(1, 3),
    edge=st.sampled_from([1, 2]),
    n_ranks=st.integers(1, 5),
    batch=st.sampled_from([1, 3, 8]),
    colouring=st.sampled_from(["levels", "paper"]),
    latents=st.sampled_from([0, 2]),
    memory=st.sampled_from([0, 4000, 1 << 20]),
    at_once=st.sampled_from([(1, 1), (2, 1), (3, 3)]),
    seed=st.integers(0, 2**31),
)
def test_any_order_gives_the_bytes_of_the_reference(
    shape, overlap, edge, n_ranks, batch, colouring, latents, memory, at_once, seed
) -> None:
    try:
        tiling = Tiling(shape, 8, overlap)
    except TilingError:
        return  # a shape that no tiling closes: test_tiling.py looks at those
    slots = dict(zip(("at_once", "parallel"), at_once, strict=True))
    painter = TrivialPainter(seed=1, box_shape=shape, tile=8, latents=latents, **slots)
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
            colouring=colouring,
            overlap_bytes=memory,
        )
        tb = Box.open(path).array("tb")[...]
        assert tb.tobytes() == reference(dm, tiling, painter, colouring).tobytes()
        left = [f for f in (path / "latents" / "steps").rglob("*") if f.name != "zarr.json"]
        assert not [f for f in left if f.is_file()], "step latents that nobody needs any more"


@pytest.mark.parametrize("parallel", [1, 2])
def test_batches_side_by_side_in_threads(
    parallel: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches in the painter at a time, as on a GPU or two cores: the same bytes, no time
    counted twice."""
    shape = (40, 24, 31)
    path, dm = new_box(str(tmp_path), shape, 5)
    painter = TrivialPainter(
        seed=1, box_shape=shape, tile=8, seconds_per_tile=0.004, at_once=2, parallel=parallel
    )
    at_work, most = set(), [0]

    class Watched(TrivialPainter):
        def paint(self, batch: TileBatch) -> np.ndarray:
            at_work.add(threading.get_ident())
            most[0] = max(most[0], len(at_work))
            painted = super().paint(batch)
            at_work.discard(threading.get_ident())
            return painted

    monkeypatch.setattr(run, "painter_of", lambda *_: Watched(**vars(painter)))
    options = PaintOptions(path, painter="trivial", batch=3, tile=8, overlap=2, quiet=True)
    report = run.paint(options)
    assert most[0] == 2 and 0 < report["busy"] <= 1
    tiling = Tiling(shape, 8, 2)
    assert report["tiles"] == tiling.size
    tb = Box.open(path).array("tb")[...]
    assert tb.tobytes() == reference(dm, tiling, painter, "levels").tobytes()


def test_the_reference_is_the_same_for_both_colourings() -> None:
    tiling = Tiling((20, 15, 26), 8, 2)
    painter = TrivialPainter(seed=1, box_shape=tiling.shape, tile=8)
    dm = np.random.default_rng(0).lognormal(size=tiling.shape).astype(np.float32)
    levels, paper = (reference(dm, tiling, painter, c) for c in ("levels", "paper"))
    assert levels.tobytes() == paper.tobytes()


@pytest.mark.parametrize("kind", list(Kind))
def test_messages_survive_the_way(kind: Kind) -> None:
    rng = np.random.default_rng(3)
    slabs = [
        Slab(7, 0, 1, rng.random((2, 3, 8, 8), np.float32)),
        Slab(9, 2, 0, rng.random((2, 8, 8, 2), np.float32)),
    ]
    shapes = {(s.tile, s.axis, s.side): s.data.shape for s in slabs}
    block = Message(kind, np.array([7, 9, 2**40]), slabs).encode()
    back = decode(block, lambda *name: shapes[name])
    assert back.kind is kind and back.tiles.tolist() == [7, 9, 2**40]
    for sent, got in zip(slabs, back.slabs, strict=True):
        assert (sent.tile, sent.axis, sent.side) == (got.tile, got.axis, got.side)
        np.testing.assert_array_equal(sent.data, got.data)
    nothing = decode(Message(kind, np.array([], np.int64)).encode(), lambda *name: ())
    assert not len(nothing.tiles) and not nothing.slabs
