"""`bigbox help`: what bigbox does, or what one command does."""

from __future__ import annotations

import argparse

TEXT = """\
Prints what bigbox does, or with COMMAND what that command does, as bigbox COMMAND --help.

example:  bigbox help paint
"""

SUMMARY = "explain bigbox, or a command"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("about", metavar="COMMAND", nargs="?", help="the command to explain")


def run(options: argparse.Namespace) -> int:
    """Print the help."""
    from bigbox.cli import parser

    about = [options.about] if options.about else []
    parser().parse_args([*about, "--help"])
    return 0
