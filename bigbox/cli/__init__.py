"""Run a command, one module for each, and turn an error into an exit status.

Nothing heavy is imported before a command runs, so that `bigbox --help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from bigbox import __version__
from bigbox.cli.parser import Parser, one_line, safe_output
from bigbox.errors import BadInput, StoppedEarly, of_system
from bigbox.signals import stoppable

_ABOUT = """\
bigbox paints 21 cm brightness temperature onto dark-matter boxes far larger than memory.

  bigbox simulate sim --grid 128 --box-size 12.5 --seed 1
                                                       a snapshot, where there is none
  bigbox ingest density.npy box.zarr --box-size 25     a density grid becomes a box
  bigbox plan box.zarr --ranks 4                       what painting it will take
  mpirun -n 4 bigbox paint box.zarr                    paint; the same command resumes
  bigbox status box.zarr                               how far it is
  bigbox verify box.zarr                               every checksum
  bigbox clean box.zarr                                remove what is no longer needed
  bigbox validate box.zarr                             spectra, seams, distributions: one page
  bigbox plot box.zarr                                 a picture of input and output
  bigbox export box.zarr --to hdf5                     numpy, HDF5 or OME-Zarr files
  bigbox train lodi a.zarr b.zarr --out model          networks of your own
  bigbox models                                        the networks that there are
  bigbox evaluate model truth.zarr                     how good they are: one page
  bigbox cosmoflow train maps --out model              learned compression of maps
  bigbox compress box.zarr small                       dm in a fraction of a bit a voxel
  bigbox decompress small again.zarr                   a draw of it; the same command resumes
  bigbox bench                                         how fast this machine paints

bigbox help COMMAND explains a command. Completion in the shell: bigbox completion --help.
"""

_STATUS = """\
exit status: 0 done; 2 bad input or usage (one line says what, the limit and the way out);
75 stopped early, nothing lost, start the same command again; 3 validate: the box fails;
1 a fault of bigbox
"""

_COMMANDS = (
    "simulate", "ingest", "plan", "paint", "status", "verify", "clean", "validate", "plot",
    "export", "train", "models", "evaluate", "cosmoflow", "compress", "decompress", "bench",
    "help", "completion",
)  # fmt: skip
_TOGETHER = ("paint", "decompress")  # several ranks work together, and agree when they stop
# What may be asked by each of several ranks.
_ANYWHERE = (*_TOGETHER, "plan", "status", "models", "help", "completion")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. What is unexpected is raised (exit status 1)."""
    _begin()
    options = parser().parse_args(arguments)
    try:
        command = options.run.__module__.rpartition(".")[2]
        if command not in _ANYWHERE:
            from bigbox.engine.mpi import require_alone

            require_alone(command)
        stopping: Any = nullcontext()
        if command not in _TOGETHER:
            stopping = stoppable(command, "start the same command again")
        with stopping:
            status = int(options.run(options) or 0)
        sys.stdout.flush()  # here, where a reader that has gone is dealt with
        return status
    except (ValueError, StoppedEarly) as error:
        from bigbox.scheduler.tiling import TilingError  # knows nothing of exit statuses

        if not isinstance(error, (BadInput, StoppedEarly, TilingError)):
            raise
        sys.stderr.write(one_line(str(error)))
        return getattr(error, "exit_status", BadInput.exit_status)
    except (OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):
            return _reader_has_gone()
        if (fault := of_system(error)) is None:
            raise
        sys.stderr.write(one_line(str(fault)))
        return fault.exit_status
    except KeyboardInterrupt:
        return 130


def _begin() -> None:
    """Make do with what there is to print on and to draw on."""
    safe_output()
    if "matplotlib" not in sys.modules:
        # Only files are drawn. A notebook names a backend that need not be installed here.
        os.environ["MPLBACKEND"] = "agg"


def _reader_has_gone() -> int:
    """Return the status where nobody reads our output any more, as in `bigbox plan box | head`."""
    # stdout points elsewhere, so that the interpreter does not complain when it flushes at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(prog="bigbox", description=_ABOUT, epilog=_STATUS)
    parser.add_argument("--version", action="version", version=f"bigbox {__version__}")
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, title="commands", parser_class=Parser
    )
    for name in _COMMANDS:
        command = import_module(f"bigbox.cli.{name}")
        own = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.TEXT,
        )
        command.add_options(own)
        own.set_defaults(run=command.run)
    return parser
