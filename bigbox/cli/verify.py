"""Define `bigbox verify`: every checksum of a box, and what to do about damage."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from bigbox.cli.values import add_box, open_box
from bigbox.errors import BadInput, printable

if TYPE_CHECKING:
    from bigbox.store.box import Box

TEXT = """\
Reads everything in a box and compares it with its checksums and with the ledger: dm, halo, the
painted tiles, tb, their metadata, coordinates and ledgers, and whether what was painted is finite.
Each thing that is damaged is named with its file, one line each, and the exit status is 2. What
follows from the rest (coordinates, the metadata of what was painted) is written again. Damaged
tiles and shards of tb are marked in the ledger, so that the same bigbox paint command that made
them makes them again; a damaged dm must be ingested again. --repair also makes damaged shards of
tb again at once, where the tiles that they are made of are whole: the exit status is 0 where all
is as it should be after that.

example:  bigbox verify box.zarr
example:  bigbox verify box.zarr --repair
"""

SUMMARY = "every checksum of a box"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_box(parser)
    group = parser.add_mutually_exclusive_group()
    text = "make shards of tb that are damaged or lost again from the painted tiles, and look again"
    group.add_argument("--repair", action="store_true", help=text)
    group.add_argument(
        "--dry-run", action="store_true", help="name the damage, but mark nothing in the ledger"
    )


def run(options: argparse.Namespace) -> int:
    """Name the damage, one line each, and return exit status 2 where there is any."""
    box = open_box(options)
    box.require_input()
    status, before = _look(options, box)
    if status and options.repair:
        from bigbox.store.repair import remake_shards

        made = remake_shards(box)
        if made:
            print(f"{options.box}: {made:,} of the shards of tb made again from the painted tiles")
        status, now = _look(options, box)
        return status if now == before else BadInput.exit_status  # a painter must make the rest
    return status


def _look(options: argparse.Namespace, box: Box) -> tuple[int, int]:
    """Name the damage; return the exit status, and the chunks that were recorded as done."""
    from bigbox.ingest.check import damaged_inputs
    from bigbox.store.mend import lost_axes
    from bigbox.store.recorded import haloes_of, painting_of
    from bigbox.store.verify import verify

    said = [f"{line}; ingest the box again" for line in damaged_inputs(box)]
    said += lost_axes(box, repair=not options.dry_run)
    damaged, complete, done, recorded = bool(said), True, [], 0
    painting = painting_of(box)
    for found in (each for each in (haloes_of(box), painting) if each):
        report = verify(found, repair=not options.dry_run)
        damaged |= not report.intact
        recorded += sum(report.done.values())
        complete &= report.complete
        said += [*map(str, report.damage), *report.notes]
        taken = [f"{n} {p.many}" for p in found.products if (n := report.revoked[p.name])]
        if taken:
            said.append(
                f"{' and '.join(taken)} are taken back: run the same bigbox paint command to make"
                " them again"
            )
        done += [
            f"{report.done[p.name]:,} of {report.total[p.name]:,} {p.many}" for p in found.products
        ]
    for line in said:
        print(f"bigbox: {printable(line)}", file=sys.stderr)
    if damaged:
        return BadInput.exit_status, recorded
    if painting is None:
        print(f"{options.box}: the inputs are intact; nothing is painted yet")
    else:
        unfinished = "" if complete else "; not complete yet"
        print(f"{options.box}: intact: {', '.join(done)}{unfinished}")
    return 0, recorded
