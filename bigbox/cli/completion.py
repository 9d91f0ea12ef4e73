"""`bigbox completion`: the script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "tcsh")

TEXT = """\
Prints a script that completes commands, options and files of bigbox in a shell.

example:  bigbox completion bash > ~/.local/share/bash-completion/completions/bigbox
          bigbox completion zsh > ~/.zfunc/_bigbox      (in a folder of $fpath)
"""

SUMMARY = "a script that completes commands in a shell"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from bigbox.cli import parser

    print(shtab.complete(parser(), options.shell))
    return 0
