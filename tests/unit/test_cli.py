"""The command line: what is said, the exit status, and that nothing heavy is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from bigbox.cli import main, parser, status, values
from bigbox.cli import paint as paint_command
from bigbox.store.box import Box

COMMANDS = (
    "simulate", "ingest", "plan", "paint", "status", "verify", "validate", "plot", "export",
    "train", "compress", "decompress", "bench",
)  # fmt: skip


@pytest.fixture
def box(tmp_path: Path) -> Path:
    made = Box.create(tmp_path / "b.zarr", (64,) * 3, 6.25, 0.0)
    rng = np.random.default_rng(0)
    made.create_array("dm")[:] = rng.gamma(0.5, 2.0, (64,) * 3).astype(np.float32)
    return made.path


def paint(box: Path, *options: str) -> int:
    return main(["paint", str(box), "--painter", "trivial", "--quiet", *options])


def one_line(text: str) -> str:
    """The only line of what was said, which begins with the program's name."""
    assert text.startswith("bigbox: ") and text.endswith("\n") and text.count("\n") == 1, text
    return text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "example:  " in text
    assert max(map(len, text.splitlines())) <= 100


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\ntry:\n from bigbox.cli import main; main(['--help'])\nexcept SystemExit:\n"
        " print({'numpy', 'torch', 'zarr', 'dask', 'mpi4py', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "required: COMMAND"),
        (["paint"], "required: BOX"),
        (["paint", "b.zarr", "--batch", "0"], "0 is out of range: at least 1"),
        (["paint", "b.zarr", "--batch", "many"], "'many' is not a whole number"),
        (["paint", "b.zarr", "--realization", "65536"], "out of range: 0 to 65535"),
        (["paint", "b.zarr", "--sampler", "euler"], "invalid choice: 'euler'"),
        (["plan", "--shape", "128", "--box-size", "nan"], "out of range: above 0"),
        (["plot", "b.zarr", "--thickness", "0"], "out of range: above 0"),
    ],
)
def test_usage_errors_are_one_line(
    arguments: list[str], match: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert match in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["paint", "no.zarr"], "no such store"),
        (["plan", "no.zarr"], "no such store"),
        (["status", "no.zarr"], "no such store"),
        (["verify", "no.zarr"], "no such store"),
        (["plot", "no.zarr"], "no such store"),
        (["ingest", "no.npy", "b.zarr"], "no such file"),
        (["plan"], "plan takes a BOX, or --shape N"),
        (["plan", "--shape", "128"], "--shape needs --box-size"),
        (["plan", "--shape", "128", "128", "--box-size", "9"], "one number or three, not 2"),
        (["plan", "--shape", "24", "--box-size", "9"], "less than a tile of 32"),
        (["plan", "--shape", "128", "--box-size", "9", "--margin", "16"], "reaches a tile"),
        (["plan", "--shape", "128", "--box-size", "9", "--overlap", "6"], "leave out --overlap"),
        (
            "plan --shape 128 --box-size 9 --overlap-method overwrite --overlap 16".split(),
            "half a tile",
        ),
        (["plan", "--shape", "128", "--box-size", "9", "--memory", "0.1"], "limit is 0.1 GB"),
        (["plan", "--shape", "128", "--box-size", "9", "--disk", "0.01"], "0.0 GB are free"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    match: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert match in one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_paint_has_an_option_for_every_field_of_the_engine() -> None:
    import argparse

    from bigbox.engine.options import PaintOptions

    parser = argparse.ArgumentParser()
    paint_command.add_options(parser)
    given = vars(parser.parse_args(["b.zarr"]))
    assert set(given) == {field.name for field in fields(PaintOptions)}
    defaults = vars(PaintOptions(Path("b.zarr")))
    assert {name: given[name] for name in defaults} == defaults


def test_names_are_those_of_the_scheduler_and_the_samplers() -> None:
    from bigbox import names
    from bigbox.scheduler import stages

    assert names.COLOURINGS == stages.COLOURINGS
    assert set(names.DEFAULT_STEPS) == set(names.SAMPLERS)


def test_from_ingest_to_picture(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(tmp_path / "rho.npy", np.random.default_rng(0).gamma(0.5, 2.0, (64, 64, 64)))
    box = tmp_path / "b.zarr"
    assert main(["ingest", str(tmp_path / "rho.npy"), str(box), "--box-size", "6.25"]) == 0
    assert main(["plan", str(box), "--ranks", "2"]) == 0
    assert main(["status", str(box)]) == 0
    assert "nothing is painted" in capsys.readouterr().out
    assert main(["verify", str(box)]) == 0
    assert "nothing is painted yet" in capsys.readouterr().out
    assert paint(box) == 0
    assert main(["status", str(box)]) == 0
    text = capsys.readouterr().out
    assert "27 of 27 (100.0 %)" in text and "complete" in text and "trivial" in text
    assert main(["verify", str(box)]) == 0
    assert "intact" in capsys.readouterr().out
    assert main(["plot", str(box)]) == 0
    assert (tmp_path / "b.png").stat().st_size > 10_000


def test_another_seed_on_a_painted_box_is_refused(box: Path, capsys: pytest.CaptureFixture) -> None:
    assert paint(box) == 0
    capsys.readouterr()
    assert paint(box, "--seed", "7") == 2
    assert "seed" in one_line(capsys.readouterr().err)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def test_verify_names_damage_and_paint_mends_it(box: Path, capsys: pytest.CaptureFixture) -> None:
    assert paint(box) == 0
    expected = Box.open(box).array("tb")[:].tobytes()
    tile = sorted((box / "latents" / "painted").glob("c.*"))[3]
    flip(tile, 1000)
    capsys.readouterr()
    assert main(["verify", str(box), "--dry-run"]) == 2
    assert main(["verify", str(box)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert tile.name in said[0] and all(line.startswith("bigbox: ") for line in said)
    assert "run the same bigbox paint" in said[-1]
    assert paint(box) == 0
    assert main(["verify", str(box)]) == 0
    assert Box.open(box).array("tb")[:].tobytes() == expected


def test_verify_names_a_damaged_density(box: Path, capsys: pytest.CaptureFixture) -> None:
    shard = next(p for p in (box / "dm").rglob("*") if p.is_file() and p.name != "zarr.json")
    flip(shard, 32**3 * 4 * 2 + 100)
    assert main(["verify", str(box)]) == 2
    text = one_line(capsys.readouterr().err)
    assert "dm: shard (0, 0, 0), chunks" in text and "ingest the box again" in text
    assert main(["plot", str(box), "--axis", "x", "--at", "0"]) == 2
    assert "cannot be read" in one_line(capsys.readouterr().err)


def test_status_sees_a_run_at_work(box: Path) -> None:
    import fcntl

    assert not status.at_work(box)
    assert paint(box) == 0
    assert not status.at_work(box)
    with open(box / "ledger" / "lease.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert status.at_work(box)


def test_a_closed_pipe_is_no_error(box: Path) -> None:
    command = f"{sys.executable} -m bigbox plan --shape 128 --box-size 12.5 | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.012, "0.012 s"),
        (42.4, "42 s"),
        (250, "4 min 10 s"),
        (3600, "1 h 0 min"),
        (11_100, "3 h 5 min"),
        (1_051_200, "12 days 4 h"),
        (1e9, "11,574 days 2 h"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert values.in_time(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (8_388_608, "8.39 MB"), (4.29e12, "4.29 TB"), (5e15, "5 PB")],
)
def test_bytes(count: float, text: str) -> None:
    assert values.in_bytes(count) == text


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("plot --array dm tb b.zarr", {"box": Path("b.zarr"), "arrays": ["dm", "tb"]}),
        ("plot --array=tb b.zarr", {"box": Path("b.zarr"), "arrays": ["tb"]}),
        ("plot b.zarr --array dm tb", {"box": Path("b.zarr"), "arrays": ["dm", "tb"]}),
        ("export --to npy --array dm x.zarr --memory 2", {"box": Path("x.zarr"), "array": ["dm"]}),
        ("ingest --box-size 25 d.npy b.zarr", {"paths": ["d.npy", "b.zarr"], "box_size": [25.0]}),
        (
            "validate --realizations 0-3 a c.zarr",
            {"box": Path("c.zarr"), "realizations": ["0-3", "a"]},
        ),
        ("plan --shape 64 64 64 --box-size 3", {"box": None, "shape": [64, 64, 64]}),
        (
            "evaluate --parts lodi m t.zarr",
            {"given": [Path("m"), Path("t.zarr")], "parts": ["lodi"]},
        ),
        ("train --steps 2 lodi a b --out m", {"kind": "lodi", "boxes": [Path("a"), Path("b")]}),
        ("paint b.zarr -- ", None),
        ("plot --array tb", None),
    ],
)
def test_options_may_stand_before_the_box(given: str, wanted: dict | None) -> None:
    if wanted is None:
        with pytest.raises(SystemExit) as caught:
            parser().parse_args([*given.split(), "--no-such"])
        assert caught.value.code == 2
        return
    found = vars(parser().parse_args(given.split()))
    assert {name: found[name] for name in wanted} == wanted


def test_help_is_a_command_and_wraps(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for words, wanted in ((["help", "validate"], "judges it"), (["help"], "commands:")):
        with pytest.raises(SystemExit) as caught:
            main(words)
        said = capsys.readouterr().out
        assert caught.value.code == 0 and wanted in said
        assert max(map(len, said.splitlines())) <= 60
    assert main(["completion", "bash"]) == 0
    assert "_bigbox" in capsys.readouterr().out


def test_a_terminal_of_ascii_gets_ascii() -> None:
    told = {"PYTHONIOENCODING": "ascii", "PATH": os.environ["PATH"]}
    told["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    code = "import sys; from bigbox.cli.parser import safe_output; safe_output(); print('5³ × ☉ Ж')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=told, check=True)
    assert done.stdout == b"5^3 x _sun \\u0416\n"


def test_realizations_go_by_number(box: Path, tmp_path: Path) -> None:
    made = Box.open(box)
    paths = values.realizations_of(made, ["0-2", "7", str(tmp_path)])
    numbers = [box / "realizations" / f"{r:04d}" for r in (1, 2, 7)]
    assert paths == [*numbers, tmp_path]
    with pytest.raises(ValueError, match="ends before it begins"):
        values.realizations_of(made, ["3-1"])


def test_boxes_with_dots_in_their_names_keep_apart(tmp_path: Path) -> None:
    names = [
        values.beside(Box.create(tmp_path / f"run_z{z}.zarr", (8,) * 3, 1.0, z), ".png").name
        for z in (0.0, 0.5)
    ]
    assert names == ["run_z0.0.png", "run_z0.5.png"]


def test_one_is_not_said_as_many() -> None:
    assert [values.count(n, "halo") for n in (0, 1, 2000)] == ["0 haloes", "1 halo", "2,000 haloes"]


def test_realizations_are_painted_one_after_the_other(
    box: Path, capsys: pytest.CaptureFixture
) -> None:
    assert paint(box, "--realizations", "0-1") == 0
    fields = [np.asarray(Box.open(box, realization=r).require("tb")[...]) for r in (0, 1)]
    assert (fields[0] != fields[1]).any()
    for wrong in ("1-0", "0-65536", "a"):
        with pytest.raises(SystemExit):
            paint(box, "--realization", wrong)
        assert "neither a number" in (said := one_line(capsys.readouterr().err)) or "range" in said
