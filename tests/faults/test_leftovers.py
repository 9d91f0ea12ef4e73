"""What killed and stopped commands leave behind is removed by the next one, and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from bigbox.cli import main
from bigbox.ingestion.workfolder import scratch_folder
from tests.faults.commands import KILLED, Commands


def test_what_a_killed_export_left_is_removed_by_the_next(box: Path, place: Path) -> None:
    out = place / "out"
    out.mkdir()
    commands, command = Commands(out), ("export", box, "--to", "npy", "--out", out / "tb.npy")
    calls = commands.run(*command).calls
    (out / "tb.npy").unlink()
    # The last call but one gives the file its name; then the hidden one, were it there, goes.
    assert commands.run(*command, kill_at=calls - 1).status == KILLED
    assert [path.name.startswith(".tb.npy.ingest-") for path in out.iterdir()] == [True]
    assert main([*map(str, command)]) == 0
    assert [path.name for path in out.iterdir()] == ["tb.npy"]


def test_scratch_of_the_dead_is_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    host = socket.gethostname()
    dead = tmp_path / f"work-{host}-{gone.pid}-x1"
    kept = [
        tmp_path / f"work-{host}-{os.getpid()}-x1",  # at work
        tmp_path / f"work-elsewhere-{gone.pid}-x1",
        tmp_path / f"work-{host}-{gone.pid}-x1-notes",
        tmp_path / "work",
    ]
    for folder in (dead, *kept):
        folder.mkdir()
        (folder / "half.zarr").write_text("x")
    link = tmp_path / f"work-{host}-{gone.pid}-x2"
    link.symlink_to(kept[0])
    made = scratch_folder(tmp_path, "work")
    assert not dead.exists() and made.is_dir() and link.is_symlink()
    assert all((folder / "half.zarr").exists() for folder in kept)


def test_a_stopped_validation_leaves_nothing(
    box: Path, place: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = place / "scratch"
    scratch.mkdir()
    from bigbox.analysis.spectra import power

    room = power.check_room

    def stopped(work: Path, *needs: object) -> None:
        room(work, *needs)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(power, "check_room", stopped)
    command = ["validate", str(box), "--out", str(place / "report"), "--scratch", str(scratch)]
    assert main(command) == 75
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert not list(scratch.iterdir())
