"""What of a model stands in the identity of a painting: all that decides bytes, and no prose."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigbox.cli import main
from bigbox.networks.identity import DECIDES, model_identity
from bigbox.networks.model import load_model
from bigbox.painters import TileBatch, make_halo_painter, make_painter
from bigbox.store.box import Box
from tests.models import VOXEL, write_model

SHAPE = (64, 64, 64)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def edit(folder: Path, kind: str, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / f"{kind}.json").read_text())
    change(card)
    (folder / f"{kind}.json").write_text(json.dumps(card))


EDITS = {
    "halogen transforms.dm.mean": lambda card: card["transforms"]["dm"].update(mean=0.3),
    "halogen smoothing": lambda card: card.update(smoothing=0.25),
    "halogen window": lambda card: card.update(window=48),
    "lodi transforms.tb.std": lambda card: card["transforms"]["tb"].update(std=0.9),
    "lodi transforms.halo.clip": lambda card: card["transforms"]["halo"].update(clip=False),
    "lodi gamma": lambda card: card.update(gamma=[-9.0, 11.5]),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_card_that_paints_otherwise_is_another_painter(model: Path, what: str) -> None:
    kind, key = what.split()
    before = model_identity(load_model(model, kind))
    edit(model, kind, EDITS[what])
    after = model_identity(load_model(model, kind))
    assert after != before and after["model"] == before["model"]
    assert after["card"][key.split(".")[0]] != before["card"].get(key.split(".")[0])


def test_prose_is_no_part_of_it(model: Path) -> None:
    before = model_identity(load_model(model, "lodi"))
    edit(model, "lodi", lambda card: card.update(sources=["edited"], data={"a": 1}, note="x"))
    assert model_identity(load_model(model, "lodi")) == before


def test_the_order_of_the_metadata_changes_nothing(model: Path) -> None:
    """The same weights, with another head of the file."""
    path, before = model / "lodi.safetensors", load_model(model, "lodi")
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8 : 8 + size])
    for order in (sorted(head["__metadata__"]), sorted(head["__metadata__"], reverse=True)):
        head["__metadata__"] = {key: head["__metadata__"][key] for key in order}
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        data = struct.pack("<Q", len(text)) + text + raw[8 + size :]
        path.write_bytes(data)
        edit(model, "lodi", lambda c: c.update(sha256=hashlib.sha256(data).hexdigest()))  # noqa: B023
        after = load_model(model, "lodi")
        assert after.sha256 != before.sha256
        assert model_identity(after) == model_identity(before)


class Watched(dict[str, Any]):
    """A card that notes what is read of it."""

    def __init__(self, card: dict[str, Any]) -> None:
        super().__init__(card)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


def test_painters_read_nothing_else_of_a_card(source: Path) -> None:
    tiles = make_painter("lodi", seed=1, box_shape=SHAPE, model=source, steps=2)
    haloes = make_halo_painter("lodi", box_shape=SHAPE, model=source)
    for painter in (tiles, haloes):
        object.__setattr__(painter.model, "card", Watched(painter.model.card))  # type: ignore[attr-defined]
    t, width = 32, np.zeros((1, 3, 2), np.int64)
    known = np.zeros((1, tiles.fields, t, t, t), np.float32)
    inputs = np.full((1, 4, t, t, t), 1e10, np.float32)
    tiles.paint(TileBatch(np.zeros(1, np.int64), np.zeros((1, 3), np.int64), inputs, known, width))
    edge = haloes.window + 2 * haloes.margin
    haloes.predict(np.ones((1, edge, edge, edge), np.float32))
    for painter in (tiles, haloes):
        read: set[str] = painter.model.card.read  # type: ignore[attr-defined]
        assert read and read <= set(DECIDES)


@pytest.mark.slow
def test_a_card_that_changes_on_the_way_is_refused(model: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "box.zarr"
    box = Box.create(path, SHAPE, 64 * VOXEL, 0.0)
    box.create_array("dm")[...] = np.random.default_rng(1).lognormal(size=SHAPE)
    paint = ["paint", str(path), "--model", str(model), "--steps", "1", "--quiet"]
    assert main(paint) == 0
    edit(model, "lodi", lambda card: card.update(sources=["edited"]))
    assert main(paint) == 0
    edit(model, "lodi", lambda card: card["transforms"]["tb"].update(mean=-1.0))
    capsys.readouterr()
    assert main(paint) == 2
    assert "painted with card.transforms.tb.mean = -2.0, this run asks for -1.0" in (
        capsys.readouterr().err
    )
