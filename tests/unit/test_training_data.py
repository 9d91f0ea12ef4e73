"""What a network is trained on: nothing leaks, and batches are functions of their step."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from bigbox.errors import BadInput
from bigbox.networks.transforms import LogTransform
from bigbox.painters.trained_range import DM, HALO, MASS
from bigbox.store.box import Box
from bigbox.training import told as in_card
from bigbox.training.data import (
    Fields,
    Region,
    TrainingBox,
    fit_transforms,
    load_boxes,
    split_boxes,
)
from bigbox.training.sampling import CANDIDATES, ORDERS, LodiSampler, Sampler, any_within
from bigbox.training.sampling import overlap_masks as draw_masks
from tests.reference.training import slow_any_within, slow_cut

VOXEL = 12.5 / 128
CPU = torch.device("cpu")


class AsIs:
    """In the place of a transform: network units are the field's own."""

    def forward(self, field: torch.Tensor) -> torch.Tensor:
        return field


def training_box(name: str = "box", voxel: float = VOXEL, **fields: np.ndarray) -> TrainingBox:
    edge = next(iter(fields.values())).shape[-1] if fields else 0
    return TrainingBox([Path(name)], edge, dict(fields), {"voxel_size": voxel})


def empty(edge: int, name: str = "box") -> TrainingBox:
    return TrainingBox([Path(name)], edge, {}, {"voxel_size": VOXEL})


def on_device(boxes: list[TrainingBox], *names: str) -> Fields:
    return Fields(boxes, {name: AsIs() for name in names}, CPU)  # type: ignore[misc]


def coded(edge: int, axis: int = 0) -> np.ndarray:
    """A field whose voxels are the coordinate along an axis, exact in float16."""
    return np.broadcast_to(
        np.arange(edge).reshape([-1 if a == axis else 1 for a in range(3)]), (1, *(edge,) * 3)
    ).astype(np.float32)


@pytest.mark.parametrize("spacing", [1, 2])
def test_sub_volumes_are_those_of_plain_indexing(spacing: int) -> None:
    """All 48 symmetries, in the second of two boxes of other edges, over the periodic ends."""
    rng = np.random.default_rng(1)
    small, large = (rng.integers(0, 999, (2, n, n, n)).astype(np.float32) for n in (7, 10))
    kept = [small.copy(), large.copy()]
    fields = on_device([training_box(f=small), training_box(f=large)], "f")
    for which in (0, 1):
        n, turns = len(kept[which][0]), [*product(ORDERS, product((False, True), repeat=3))]
        assert len(turns) == 48
        corners = rng.integers(0, n, (48, 3)).tolist()
        order, flip = (torch.tensor([turn[i] for turn in turns]) for i in (0, 1))
        voxels = fields.voxels(
            torch.full((48,), which), torch.tensor(corners), order, flip, 3, spacing
        )
        found = fields.cut("f", voxels).numpy()
        alone = fields.cut("f", voxels, torch.arange(48) % 2).numpy()
        seen = set()
        for i, turn in enumerate(turns):
            wanted = slow_cut(kept[which], corners[i], *map(list, turn), 3, spacing)
            np.testing.assert_array_equal(found[i], wanted)
            np.testing.assert_array_equal(alone[i], wanted[i % 2 : i % 2 + 1])
            seen.add(slow_cut(kept[which], [0, 0, 0], *map(list, turn), 3, spacing).tobytes())
        assert len(seen) == 48  # no two symmetries are the same


def test_fields_are_in_network_units_and_fewer_draws_come_again() -> None:
    rng = np.random.default_rng(2)
    two, one = (rng.lognormal(0, 1, (draws, 6, 6, 6)).astype(np.float32) for draws in (2, 1))
    transform = LogTransform(0.1, -0.2, 0.5)
    boxes = [training_box(tb=two.copy()), training_box(tb=one.copy())]
    fields = Fields(boxes, {"tb": transform}, CPU)
    assert not boxes[0].fields and fields.values["tb"].shape == (2, 2 * 216)
    np.testing.assert_allclose(
        fields.of("tb", {0}).reshape(two.shape), transform.forward(two), atol=2e-3
    )
    second = fields.of("tb", {1}).reshape(two.shape)
    assert torch.equal(second[0], second[1])
    np.testing.assert_allclose(second[:1], transform.forward(one), atol=2e-3)


def test_transforms_are_fitted_to_the_training_boxes_alone() -> None:
    rng = np.random.default_rng(3)
    made = [10 ** rng.normal(i, 1, (1, 8, 8, 8)).astype(np.float32) for i in range(3)]
    boxes = [training_box(dm=field) for field in made]
    fit = fit_transforms(boxes, [Region(0), Region(2)], {"dm": (0.01, False)}, CPU)["dm"]
    logs = np.log10(np.stack([made[0], made[2]]) + 0.01)
    assert fit.mean == pytest.approx(logs.mean(), rel=1e-4)
    assert fit.std == pytest.approx(logs.std(), rel=1e-4)


def planes(regions: list[Region], edge: int, window: int, spacing: int) -> set[int]:
    """Planes of axis 0 that sub-volumes of these regions touch."""
    box = training_box(f=coded(edge))
    sampler = Sampler(on_device([box], "f"), [box], regions, window, 1, spacing)
    batches = [sampler.batch(100, step)["f"] for step in range(5)]
    return set(torch.cat(batches).unique().int().tolist())


@pytest.mark.parametrize("spacing", [1, 2])
def test_one_box_is_split_with_a_gap_that_nothing_reaches_into(spacing: int) -> None:
    split = split_boxes([empty(128)], 32)
    seen = [planes(r, 128, 32 // spacing, spacing) for r in (split.training, split.validation)]
    training, validation = seen
    assert validation == set(range(32)) if spacing == 1 else max(validation) < 32
    assert training == set(range(52, 108))
    apart = [min((a - b) % 128, (b - a) % 128) for a in training for b in validation]
    assert min(apart) * VOXEL > 2.0


def test_every_corner_is_reached_alike_and_none_beyond() -> None:
    """Two boxes, one of them a slab: each corner that may be has the same chance."""
    boxes = [training_box(f=coded(6)), training_box(f=coded(8))]
    regions, window, spacing = [Region(0), Region(1, 1, 7)], 2, 2
    sampler = Sampler(on_device(boxes, "f"), boxes, regions, window, 4, spacing)
    box, corner = sampler.places(60_000, sampler.generator(0))
    found, count = np.unique(torch.cat([box[:, None], corner], 1), axis=0, return_counts=True)
    whole = [(0, *c) for c in np.ndindex(6, 6, 6)]
    # A sub-volume reaches over 3 voxels: the slab's 6 planes leave 4 origins.
    slab = [(1, 1 + x, y, z) for x, y, z in np.ndindex(4, 8, 8)]
    assert sorted(map(tuple, found.tolist())) == sorted(whole + slab)
    expected = 60_000 / len(found)
    chi2 = ((count - expected) ** 2 / expected).sum()
    assert abs(chi2 - len(found)) < 5 * (2 * len(found)) ** 0.5


def test_every_symmetry_is_drawn() -> None:
    box = training_box(f=coded(6))
    sampler = Sampler(on_device([box], "f"), [box], [Region(0)], 2, 4)
    order, flip = sampler.turned(5000, sampler.generator(0))
    _, count = np.unique(torch.cat([order, flip], 1), axis=0, return_counts=True)
    assert len(count) == 48 and abs(count - 5000 / 48).max() < 5 * (5000 / 48) ** 0.5


def test_a_batch_is_a_function_of_seed_step_and_rank() -> None:
    rng = np.random.default_rng(5)
    box = training_box(f=rng.integers(0, 999, (1, 40, 40, 40)).astype(np.float32))
    fields = on_device([box], "f")

    def batch(seed: int, step: int, rank: int) -> bytes:
        sampler = Sampler(fields, [box], [Region(0)], 32, seed)
        sampler.batch(3, step + 1, rank)  # what was drawn before does not matter
        return sampler.batch(3, step, rank)["f"].numpy().tobytes()

    assert batch(3, 7, 1) == batch(3, 7, 1)
    keys = [(3, 7, 1), (3, 8, 1), (3, 7, 0), (4, 7, 1)]
    assert len({batch(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize("reach", [1, 2, 3, 5, 7, 9])
def test_any_within_is_that_of_all_cubes(reach: int) -> None:
    field = np.random.default_rng(reach).random((7, 7, 7)) < 0.01
    field[2, 6, 5] = True
    found = any_within(torch.from_numpy(field), reach).numpy()
    np.testing.assert_array_equal(found, slow_any_within(field, reach))


def haloes(rng: np.random.Generator, edge: int, counts: tuple[int, ...]) -> np.ndarray:
    field = np.zeros((4, edge, edge, edge), np.float32)
    for channel, count in enumerate(counts):
        field[(channel, *rng.integers(0, edge, (3, count)))] = 2.0
    return field


@pytest.mark.parametrize("spacing", [1, 2])
def test_halo_poor_sub_volumes_are_seen_less_often(spacing: int) -> None:
    """The chance of each kind, by counting all corners: kept 1, 1/2, 1/10, of 12 candidates."""
    rng = np.random.default_rng(6)
    halo = haloes(rng, 10, (3, 1, 1, 0))
    tb = np.zeros((1, 10, 10, 10), np.float32)
    box = training_box(halo=halo.copy(), tb=tb)
    fields = on_device([box], "halo", "tb")
    sampler = LodiSampler(fields, [box], [Region(0)], 3, 7, spacing, threshold=1.0)
    reach = 2 * spacing + 1
    rich = slow_any_within((halo[2:] > 1).any(0), reach)
    some = slow_any_within((halo > 1).any(0), reach) & ~rich
    kind = np.where(rich, 0, np.where(some, 1, 2))
    share = np.array([(kind == k).mean() for k in range(3)])
    assert (share > 0.02).all()
    kept = share * (1, 0.5, 0.1)
    none = (1 - kept.sum()) ** CANDIDATES  # then the first one comes, which was not kept
    expected = (1 - none) * kept / kept.sum() + none * (share - kept) / (share - kept).sum()
    box_of, corner = sampler.places(20_000, sampler.generator(0))
    assert not box_of.any()
    drawn = kind[tuple(corner.numpy().T)]
    found = np.array([(drawn == k).mean() for k in range(3)])
    assert (abs(found - expected) < 4 * np.sqrt(expected / 20_000)).all()


def test_predicted_haloes_take_the_place_of_true_ones_and_draws_change() -> None:
    field = np.full((4, 8, 8, 8), 2.0, dtype=np.float32)
    tb = np.stack([np.full((8, 8, 8), draw, np.float32) for draw in range(3)])
    box = training_box(halo=field, predicted=-field, tb=tb)
    fields = on_device([box], "halo", "predicted", "tb")
    make = {"threshold": 1.0, "predicted": 0.3}
    sampler = LodiSampler(fields, [box], [Region(0)], 4, 5, **make)
    batch = sampler.batch(2000, 0)
    assert {name: tuple(x.shape[1:]) for name, x in batch.items()} == {
        "tb": (4, 4, 4),
        "halo": (4, 4, 4, 4),
        "known": (4, 4, 4),
        "uniform": (),
        "noise": (4, 4, 4),
    }
    assert abs((batch["halo"][:, 0, 0, 0, 0] < 0).float().mean() - 0.3) < 0.05
    draws = batch["tb"][:, 0, 0, 0]
    assert all(abs((draws == draw).float().mean() - 1 / 3) < 0.05 for draw in range(3))
    # One noise level in each stratum, and noise that is standard normal.
    assert torch.equal((batch["uniform"] * 2000).long(), torch.arange(2000))
    assert abs(float(batch["noise"].std()) - 1) < 0.02
    assert batch["known"].any()
    bare = LodiSampler(fields, [box], [Region(0)], 4, 5, **make, masked=False)
    assert not bare.batch(50, 0)["known"].any()


def test_overlap_masks_are_slabs_on_faces() -> None:
    masks = draw_masks(1500, 32, torch.Generator().manual_seed(6)).numpy()
    none = pairs = 0
    combinations, widths = set(), []
    for mask in masks:
        unknown = mask == 0
        # What is left to paint is a cuboid: a product of one interval on each axis.
        axes = [unknown.any(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
        left = axes[0][:, None, None] & axes[1][:, None] & axes[2]
        np.testing.assert_array_equal(unknown, left)
        ends = []
        for axis in axes:
            inside = np.flatnonzero(axis)
            low, high = inside[0], 31 - inside[-1]
            widths += [int(width) for width in (low, high) if width]
            ends += [bool(low), bool(high)]
        combinations.add(tuple(ends))
        none += not mask.any()
        pairs += ends[::2] == ends[1::2]
    # One in eight of the tiles whose axes have both ends known, and one in 64 of the others.
    expected = 1500 * (0.75 / 8 + 0.25 / 64)
    assert len(combinations) == 64 and abs(none - expected) < 4 * expected**0.5
    assert abs(pairs / 1500 - (0.75 + 0.25 / 8)) < 0.05
    # Half of them 4 voxels, the others 3 to 8 alike.
    assert set(widths) == {3, 4, 5, 6, 7, 8}
    assert abs(np.mean(np.array(widths) == 4) - (0.5 + 0.5 / 6)) < 0.05


def test_several_boxes_are_split_by_simulation() -> None:
    boxes = [empty(32, str(i)) for i in range(8)]
    split = split_boxes(boxes, 32)
    assert [r.box for r in split.training] == [0, 1, 2, 3, 4, 5]
    assert [r.box for r in split.validation] == [6, 7]
    assert [r.box for r in split_boxes(boxes, 32, held_out=1).validation] == [7]


def test_boxes_that_cannot_be_split() -> None:
    with pytest.raises(BadInput, match="too few to split"):
        split_boxes([empty(64)], 64)
    with pytest.raises(BadInput, match="48 voxels an axis, the network sees 64"):
        split_boxes([empty(48)], 64)
    with pytest.raises(BadInput, match="none is left to train on"):
        split_boxes([empty(32), empty(32)], 32, held_out=2)
    with pytest.raises(BadInput, match="is one simulation, which is split by slab"):
        split_boxes([empty(128)], 32, held_out=1)


def write_box(path: Path, halo: float, tb: float, edge: int = 8, **other: float) -> Path:
    box = Box.create(path, (edge,) * 3, edge * other.get("voxel", VOXEL), other.get("z", 0.0))
    told = {"smoothing": other.get("smoothing", 0.2)}
    box.create_array("halo", channels=4, attributes=told)[...] = halo
    box.create_array("tb", attributes=told)[...] = tb
    return path


def test_draws_of_one_simulation_are_one_box(tmp_path: Path) -> None:
    paths = [
        write_box(tmp_path / f"{name}.zarr", halo, tb)
        for name, halo, tb in (("a0", 1, 1), ("b0", 2, 3), ("a1", 1, 2))
    ]
    boxes = load_boxes(paths, ["halo", "tb"])
    assert [box.name for box in boxes] == ["a0.zarr, a1.zarr", "b0.zarr"]
    assert boxes[0].fields["tb"][:, 0, 0, 0].tolist() == [1, 2]
    assert boxes[1].fields["tb"][:, 0, 0, 0].tolist() == [3]


def test_boxes_that_do_not_belong_together(tmp_path: Path) -> None:
    first = write_box(tmp_path / "first.zarr", 1, 1)
    for name, told in (
        (r"voxels of 0\.2 Mpc/h", {"voxel": 0.2}),
        ("redshift 1, first.zarr has 0", {"z": 1.0}),
        (r"smoothing 0\.4", {"smoothing": 0.4}),
    ):
        other = write_box(tmp_path / f"{'-'.join(told)}.zarr", 2, 1, **told)
        with pytest.raises(BadInput, match=name):
            load_boxes([first, other], ["halo", "tb"])
    Box.create(tmp_path / "bare.zarr", (8,) * 3, 8 * VOXEL, 0.0)
    with pytest.raises(BadInput, match="has no 'halo'"):
        load_boxes([tmp_path / "bare.zarr"], ["halo", "tb"])
    with pytest.raises(BadInput, match="given twice"):
        load_boxes([first, first], ["halo", "tb"])


def test_what_bigbox_painted_is_no_truth(tmp_path: Path) -> None:
    path = write_box(tmp_path / "painted.zarr", 1, 1)
    Box.open(path, "r+").array("tb").attrs["painting"] = {"painter": "lodi"}
    with pytest.raises(BadInput, match="painted by bigbox, it is no truth"):
        load_boxes([path], ["halo", "tb"])


def test_the_range_of_the_training_is_told(tmp_path: Path) -> None:
    """Of the regions that are trained on alone, in the fields' units; as `bigbox paint` counts."""
    rng = np.random.default_rng(12)
    fields = {"dm": rng.lognormal(0, 1, (1, 8, 8, 8)), "halo": rng.lognormal(20, 3, (4, 8, 8, 8))}
    fields["dm"][0, 0, 3, 3], fields["halo"][:, 7] = 1e4, 1e20  # not trained on at first
    edges = {"mass_edges": [3e10, 1e11, 5e11, 1e12, 7e12]}
    Box.create(
        tmp_path / "a.zarr", (8,) * 3, 1.0, 0.0, provenance={"code": "x", "seed": 3}
    ).create_array("halo", channels=4, attributes=edges)
    boxes = [training_box(str(tmp_path / "a.zarr"), **fields), training_box("memory", **fields)]
    boxes[0].attributes["sources"] = {"tb": "a relation: a stand-in for hydrodynamics"}
    boxes[1].attributes["sources"] = {}
    planes = in_card.densest_planes(boxes)
    boxes[1].fields.clear()  # used up
    found = in_card.range_seen(boxes, planes, [Region(0, 2, 6)])
    assert found[DM] == fields["dm"][:, 2:6].max() < fields["dm"].max()
    assert found[HALO] == fields["halo"][:, 2:6].max(axis=(1, 2, 3)).tolist()
    assert found[MASS] == 7e12
    whole = in_card.range_seen(boxes, planes, [Region(0, 2, 6), Region(1)])
    assert whole[DM] == fields["dm"].max()
    assert MASS not in in_card.range_seen(boxes, planes, [Region(1)])
    card = in_card.provenance(boxes, "cpu", 7)
    assert card["stand_in"] == "a relation: a stand-in for hydrodynamics"
    first, second = card["provenance"]["simulations"]
    assert first == {"box": "a.zarr", "code": "x", "seed": 3} and second == {"box": "memory"}
    assert card["provenance"]["device"] == "cpu" and card["provenance"]["seed"] == 7
