"""Parse the command line as argparse does, with what people trip over taken care of.

- An option of several values (--array dm tb) leaves BOX alone that stands behind it.
- Errors are one line, from the first rank only.
- Help is wrapped to the terminal, and safe on one that knows ASCII alone.
"""

from __future__ import annotations

import argparse
import codecs
import io
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from bigbox.errors import printable

# What messages and help have that ASCII has not.
ASCII = str.maketrans(
    {"³": "^3", "²": "^2", "×": "x", "±": "+-", "☉": "_sun", "→": "->", "–": "-", "½": "1/2"}
)
_ERRORS = "bigbox-ascii"
_COMMANDS = ("bigbox ", "mpirun ", "torchrun ")


def one_line(message: str) -> str:
    """Return an error as it is printed."""
    return f"bigbox: {printable(message)}\n"


def safe_output() -> None:
    """Have no character fail that stdout or stderr cannot show."""

    def spelled(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        text = error.object[error.start : error.end].translate(ASCII)
        return text.encode("ascii", "backslashreplace").decode(), error.end

    codecs.register_error(_ERRORS, spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where 128³ or a Latin-1 name can't be shown
            stream.reconfigure(errors=_ERRORS)


def _blocks(text: str) -> list[str]:
    """Return paragraphs, rows of columns and commands, each as one line; "" between paragraphs."""
    blocks = [""]
    for line in text.splitlines():
        words, deep = line.strip(), len(line) - len(line.lstrip())
        last = blocks[-1]
        begins = not words or not last or last.endswith("\\") or 0 < deep <= 5
        begins |= words.startswith((*_COMMANDS, "example:", "next:"))
        begins |= not deep and last.startswith(" ")
        if begins:
            blocks.append(line)
        else:
            blocks[-1] = f"{last} {words}"
    return blocks[1:]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep the lines of a description that fit; wrap paragraphs and columns where they do not."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if all(len(line) <= width for line in text.splitlines()):
            return super()._fill_text(text, width, indent)
        lines: list[str] = []
        for block in _blocks(text):
            column = re.match(r" *(\S+ {2,})?", block)
            hang = " " * min(len(column[0]) if column else 0, width // 2)
            wrap = {"subsequent_indent": hang, "break_long_words": False, "break_on_hyphens": False}
            lines += textwrap.wrap(block, width, **wrap) or [""]  # type: ignore[arg-type]
        return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """Parse one command."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": HelpFormatter} | options)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line."""
        from bigbox.engine.mpi import launched

        text = f"{message}{self._swallowed(message)} (see {self.prog} --help)"
        self.exit(2, None if launched()[2] else one_line(text))

    def _swallowed(self, message: str) -> str:
        """Return the way out where an option of several values may have taken a place as one."""
        places = [action for action in self._actions if not action.option_strings]
        given = [
            flag
            for action in self._actions
            if action.nargs == "+" and not isinstance(action, argparse._SubParsersAction)
            for flag in action.option_strings
            if flag in sys.argv
        ]
        named = re.match(r"argument (\S+):", message)
        if not (places and given) or (named and named[1] not in given):
            return ""
        if not named and not message.startswith(("the following", "unrecognized")):
            return ""
        return f"; {given[0]} takes all that follows: name files and boxes before it, or behind --"

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; what stands alone comes first, so that no option of several values takes it."""
        given = list(sys.argv[1:] if args is None else args)
        if not any(isinstance(one, argparse._SubParsersAction) for one in self._actions):
            given = self._alone_first(given)
        return super().parse_known_args(given, namespace)

    def print_help(self, file: TextIO | None = None) -> None:  # type: ignore[override]
        """Print the help."""
        safe_output()
        super().print_help(file)

    def _alone_first(self, given: list[str]) -> list[str]:
        """Return the arguments with those that belong to no option in front.

        The values of an option end at what it cannot read. Where BOX would lack, the last value of
        an option of several is taken for it, of a path that is there rather than of another.
        """
        if "--" in given:
            return given
        alone: list[str] = []
        runs: list[list[str]] = []  # an option and its values
        at = 0
        while at < len(given):
            word, at = given[at], at + 1
            option = self._option(word)
            if option is None:
                if word.startswith("-") and len(word) > 1 and not _is_number(word):
                    return given  # argparse says that it is not known
                alone.append(word)
                continue
            run, most = [word], _most(option)
            while at < len(given) and len(run) <= most and self._takes(option, given[at], run):
                run.append(given[at])
                at += 1
            runs.append(run)
        wanted = [one for one in self._actions if not one.option_strings and one.nargs != "*"]
        if len(alone) < sum(one.required for one in wanted):
            open_runs = [run for run in runs if len(run) > 2 and "=" not in run[0]]
            there = [run for run in open_runs if Path(run[-1]).exists()]
            if open_runs:
                alone.append((there or open_runs)[-1].pop())
        return [*alone, *(word for run in runs for word in run)]

    def _option(self, word: str) -> argparse.Action | None:
        """Return the option that a word names, whole or as far as it is clear."""
        name = word.split("=", 1)[0]
        if name in self._option_string_actions:
            return None if "=" in word and not name else self._option_string_actions[name]
        if not name.startswith("--"):
            return None
        found = {id(a): a for s, a in self._option_string_actions.items() if s.startswith(name)}
        return next(iter(found.values())) if len(found) == 1 else None

    def _takes(self, option: argparse.Action, word: str, run: list[str]) -> bool:
        """Return whether a word can be a value of an option that has taken these.

        The first one is its own whatever it is: argparse says what is wrong with it.
        """
        if word.startswith("-") and len(word) > 1 and not _is_number(word):
            return False
        if option.nargs != "+" or len(run) == 1:
            return True
        try:
            value = self._get_value(option, word)
            self._check_value(option, value)
        except argparse.ArgumentError:
            return False
        return True


def _most(option: argparse.Action) -> float:
    """Return how many values an option takes at most."""
    if option.nargs is None:
        return 1
    if isinstance(option.nargs, int):
        return option.nargs
    return {"?": 1.0}.get(option.nargs, float("inf"))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
