"""`bigbox verify`: every checksum of a box, and what to do about what is damaged."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_command, add_realization, box_path
from bigbox.errors import BadInput

_TEXT = """\
Reads everything in a box and compares it with its checksums and with the ledger: dm, halo, the
painted tiles, tb. Each thing that is damaged is named with its file, one line each, and the exit
status is 2. Damaged tiles and shards of tb are marked in the ledger, so that the same bigbox paint
command that made them makes them again; a damaged dm must be ingested again.

example:  bigbox verify box.zarr
"""


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = add_command(commands, "verify", summary="every checksum of a box", text=_TEXT)
    parser.add_argument("box", metavar="BOX", type=Path, help="the box")
    parser.add_argument(
        "--dry-run", action="store_true", help="name the damage, but mark nothing in the ledger"
    )
    add_realization(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Names the damage; exit status 2 when there is any."""
    from bigbox.ingest.check import damaged_inputs
    from bigbox.store.box import Box
    from bigbox.store.ledger import Ledger
    from bigbox.store.verify import verify, verify_haloes

    box = Box.open(box_path(options))
    box.require("dm")
    inputs = damaged_inputs(box)
    for line in inputs:
        print(f"bigbox: {line}; ingest the box again", file=sys.stderr)
    haloes = verify_haloes(box, repair=not options.dry_run)
    if haloes:
        for line in [*map(str, haloes.damage), *haloes.notes]:
            print(f"bigbox: {line}", file=sys.stderr)
        if haloes.revoked:
            print(
                f"bigbox: {haloes.revoked} blocks of haloes are taken back: run the same bigbox "
                "paint command to predict them again",
                file=sys.stderr,
            )
    damaged = bool(inputs or (haloes and haloes.damage))
    if Ledger(box.place).run() is None:
        if not damaged:
            print(f"{options.box}: the inputs are intact; nothing is painted yet")
        return BadInput.exit_status if damaged else 0
    report = verify(box, repair=not options.dry_run)
    for damage in report.damage:
        print(f"bigbox: {damage}", file=sys.stderr)
    for note in report.notes:
        print(f"bigbox: {note}", file=sys.stderr)
    if report.revoked_tiles or report.revoked_shards:
        print(
            f"bigbox: {report.revoked_tiles} tiles and {report.revoked_shards} shards of tb are "
            "taken back: run the same bigbox paint command to make them again",
            file=sys.stderr,
        )
    if report.damage or damaged:
        return BadInput.exit_status
    done = f"{haloes.blocks_done:,} of {haloes.blocks:,} blocks of haloes, " if haloes else ""
    done += f"{report.tiles_done:,} of {report.tiles:,} tiles, "
    done += f"{report.shards_done:,} of {report.shards:,} shards of tb"
    print(f"{options.box}: intact: {done}" + ("" if report.complete else "; not complete yet"))
    return 0
