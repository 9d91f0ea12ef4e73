"""Compress and decompress: what is kept is exact where it should be, and the same however made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bigbox.cli import main
from bigbox.cosmoflow import encode as encoding
from bigbox.cosmoflow.compressed import Compressed
from bigbox.cosmoflow.decode import DecompressOptions, decompress
from bigbox.cosmoflow.encode import CompressOptions, cell_means, compress
from bigbox.cosmoflow.local import CELL, HALO, LocalFlow, LocalSize
from bigbox.cosmoflow.local_model import load_local, save_local
from bigbox.errors import BadInput
from bigbox.networks.transforms import LogTransform
from bigbox.store.box import Box
from tests.unit.test_cli import one_line

N = 64
TINY = LocalSize(channels=2, encoder=8, widths=(8, 8), embedding=16, bypass=1)
ABOUT = {"voxel_size": 0.1, "redshift": 0.0, "cosmology": {}, "sources": ["nothing"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing, with weights that do something."""
    torch.manual_seed(1)
    flow = LocalFlow(TINY, LogTransform(0.1, -0.6, 0.5))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("model")
    save_local(folder, flow, 0.15, ABOUT, torch.float32)
    return folder


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Box.create(tmp_path_factory.mktemp("box") / "b.zarr", (N,) * 3, 0.1 * N, 0.0)
    density = np.random.default_rng(0).gamma(0.3, 3.0, (N,) * 3).astype(np.float32)
    density[:8, :8, :8] = 0.0
    made.create_array("dm")[:] = density
    return made.path


@pytest.fixture(scope="module")
def small(box: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compressed") / "small"
    compress(CompressOptions(box, out, model))
    return out


def dm(path: Path) -> np.ndarray:
    return Box.open(path).array("dm")[:]


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_latents_are_those_of_the_whole_box_at_once(box: Path, model: Path, small: Path) -> None:
    """The slow reference: the box with its halo wrapped round it, encoded in one call."""
    flow = load_local(model).network
    assert isinstance(flow, LocalFlow)
    halo = CELL * HALO
    padded = np.pad(dm(box), halo, mode="wrap")
    with torch.inference_mode():
        wanted = flow.encoder(torch.from_numpy(padded)[None, None])[0].numpy()
    found = Compressed.open(small).read((0, 0, 0), (N // CELL,) * 3)
    apart = np.abs(found[1:] - wanted)
    assert apart.max() <= 0.5 * 0.15 * 1.001
    means = 0.1 * (10.0 ** found[0].astype(np.float64) - 1)
    assert np.allclose(means, cell_means(dm(box)), rtol=0.03, atol=0.005)
    assert (means[:2, :2, :2] == 0).all()


def test_the_encoder_reaches_as_far_as_it_says_and_shifts_with_the_box(model: Path) -> None:
    encoder = load_local(model).network.encoder
    edge = CELL * (2 * HALO + 3)
    density = torch.rand(1, 1, edge, edge, edge, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = encoder(density)
        changed = density.clone()
        changed[..., -1] += 100.0  # in the last cells' halo
        after = encoder(changed)
        further = encoder(torch.roll(density, CELL, dims=2))
    assert before.shape[-1] == 3
    assert torch.equal(before[..., :-1], after[..., :-1])
    assert not torch.equal(before[..., -1], after[..., -1])
    assert torch.allclose(before[:, :, :-1], further[:, :, 1:], atol=1e-5)


def test_bytes_do_not_depend_on_how_it_is_worked_through(
    box: Path, model: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CACHE", 1)  # every chunk is read again and again
    compress(CompressOptions(box, tmp_path / "again", model, workers=3))
    assert files(tmp_path / "again") == files(small)


def test_compress_goes_on_after_a_kill(box: Path, model: Path, small: Path, tmp_path: Path) -> None:
    half = shutil.copytree(small, tmp_path / "half")
    meta = json.loads((half / "zarr.json").read_text())
    for name in ("latent_sha256", "bytes", "bits_per_voxel"):
        del meta["attributes"][name]
    meta["attributes"]["complete"] = False
    for shard in (half / "latent" / "c").rglob("*"):
        if shard.is_file():
            shard.rename(shard.with_name(f".{shard.name}.partial"))  # as zarr leaves it
    (half / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(BadInput, match="not compressed to its end"):
        decompress(DecompressOptions(half, tmp_path / "b.zarr", model))
    compress(CompressOptions(box, half, model))
    assert files(half).items() >= files(small).items()


def test_decoded_cells_have_the_mean_that_they_had(
    box: Path, model: Path, small: Path, tmp_path: Path
) -> None:
    options = DecompressOptions(small, tmp_path / "a.zarr", model, steps=2, quiet=True)
    decompress(options)
    found = dm(options.box)
    assert found.shape == (N,) * 3 and found.min() >= 0
    # A cell that two tiles share is scaled by each in its own draw: it fits as the draws do.
    apart = np.abs(cell_means(found) / np.maximum(cell_means(dm(box)), 1e-9) - 1)
    assert np.median(apart) < 0.02
    assert found.mean() == pytest.approx(1.0 * dm(box).mean(), rel=0.02)
    attributes = Box.open(options.box).array("dm").attrs.asdict()
    assert attributes["decoded"]["latents"] == Compressed.open(small).attributes["latent_sha256"]
    assert sorted(p.name for p in options.box.iterdir()) == ["dm", "x", "y", "z", "zarr.json"]
    before = files(options.box)
    decompress(options)  # is done
    assert files(options.box) == before

    other = replace(options, box=tmp_path / "b.zarr", batch=3, threads=2)
    decompress(other)
    assert dm(other.box).tobytes() == found.tobytes()

    another = replace(options, box=tmp_path / "c.zarr", seed=1)
    decompress(another)
    assert not np.array_equal(dm(another.box), found)


def test_a_region_has_the_bytes_of_the_whole(small: Path, model: Path, tmp_path: Path) -> None:
    whole = DecompressOptions(small, tmp_path / "a.zarr", model, steps=1, quiet=True)
    part = replace(whole, box=tmp_path / "b.zarr", region="10:20,40:50,0:8")
    decompress(whole)
    decompress(part)
    cut = np.s_[10:20, 40:50, 0:8]
    assert dm(part.box)[cut].tobytes() == dm(whole.box)[cut].tobytes()
    assert np.isnan(dm(part.box)).any()
    decompress(replace(part, region=None))
    assert dm(part.box).tobytes() == dm(whole.box).tobytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"box_size": [12.8] * 3, "voxel_size": 0.2}, "voxel 0.2 Mpc/h where the model knows 0.1"),
        ({"redshift": 1.0}, "redshift 1"),
    ],
)
def test_a_box_that_the_model_is_not_for(
    box: Path, model: Path, tmp_path: Path, capsys, change: dict, words: str
) -> None:
    other = shutil.copytree(box, tmp_path / "b.zarr")
    meta = json.loads((other / "zarr.json").read_text())
    meta["attributes"] |= change
    (other / "zarr.json").write_text(json.dumps(meta))
    command = ["compress", str(other), str(tmp_path / "out"), "--model", str(model)]
    assert main(command) == 2
    assert words in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
    assert main([*command, "--force"]) == 0
    assert words in capsys.readouterr().err


def test_refusals(box: Path, small: Path, model: Path, tmp_path: Path, capsys) -> None:
    def refused(*command: object) -> str:
        assert main([str(word) for word in command]) == 2
        return one_line(capsys.readouterr().err)

    out = tmp_path / "out"
    assert "another field" in refused("compress", box, out, "--model", model, "--field", "tb")
    assert "no cosmoflow3d.json" in refused("compress", box, out, "--model", tmp_path)
    assert "multiple of 4" in refused("compress", _odd(tmp_path), out, "--model", model)
    assert not out.exists()
    holds = refused("compress", box, small, "--model", model, "--step", "0.3")
    assert "holds another compression" in holds

    other = shutil.copytree(model, tmp_path / "model")
    flow = load_local(other).network
    save_local(other, flow, 0.15, ABOUT, torch.float16)  # type: ignore[arg-type]
    again = tmp_path / "again.zarr"
    assert "of another model" in refused("decompress", small, again, "--model", other)
    assert "no compressed box" in refused("decompress", box, again, "--model", model)
    assert "no such store" in refused("decompress", out, again, "--model", model)
    assert "at least 3" in refused("decompress", small, again, "--model", model, "--margin", 2)
    assert not again.exists()
    assert "dm of its own" in refused("decompress", small, box, "--model", model)

    bad = shutil.copytree(small, tmp_path / "bad")
    shard = next(p for p in (bad / "latent" / "c").rglob("*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    damaged = refused("decompress", bad, tmp_path / "d.zarr", "--model", model, "--steps", 1)
    assert "damaged" in damaged


def _odd(folder: Path) -> Path:
    made = Box.create(folder / "odd.zarr", (66,) * 3, 6.6, 0.0)
    made.create_array("dm")[:] = np.ones((66,) * 3, np.float32)
    return made.path
