"""Define `bigbox clean`: the disk that a finished box no longer needs."""

from __future__ import annotations

import argparse

from bigbox.cli.values import add_box, in_bytes, open_box

TEXT = """\
Removes what a painted box no longer needs: the painted tiles (latents) of a tb that is whole, and
the sums and the noisy field that runs have left. Every checksum is read first: where anything is
damaged nothing goes, and what is not finished stays, with the reason. Without the tiles tb cannot
be repaired or assembled again. Another realization has tiles of its own: --realization.

example:  bigbox clean box.zarr --dry-run
example:  bigbox clean box.zarr
"""

SUMMARY = "remove what a painted box no longer needs"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_box(parser)
    parser.add_argument("--dry-run", action="store_true", help="tell what would go")


def run(options: argparse.Namespace) -> int:
    """Remove it, and tell what went and what stays."""
    from bigbox.store.clean import clean
    from bigbox.store.recorded import haloes_of, painting_of

    box = open_box(options)
    word, total = ("would go" if options.dry_run else "removed"), 0
    for found in (haloes_of(box), painting_of(box)):
        if found is None:
            continue
        cleaned = clean(found, dry_run=options.dry_run)
        for path, count in cleaned.gone.items():
            print(f"{path}: {in_bytes(count)} {word}")
            total += count
        for line in cleaned.kept:
            print(line)
    print(f"{box.place}: {in_bytes(total)} {word}")
    return 0
