"""What a signal that asks for an end does: the command stops cleanly, with exit status 75."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bigbox.errors import StoppedEarly

# A batch system's warning before a limit is one of these, or what its user has asked for.
# SIGHUP: the terminal is closed; SIGXCPU: the processor time of a queue is over.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU)

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handled(handler: Handler, *more: signal.Signals) -> Iterator[None]:
    """Have `handler` called for these signals, and for more; the old ones come back in the end.

    A signal that is ignored stays so: `nohup` has it that way. Threads but the main one get none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (*SIGNALS, *more) if signal.getsignal(n) is not signal.SIG_IGN]
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, old in before:
            signal.signal(number, signal.SIG_DFL if old is None else old)  # None: not of Python


@contextmanager
def stoppable(
    where: object, after: str = "nothing is left behind, the same command begins anew"
) -> Iterator[None]:
    """Raise StoppedEarly at a signal; a second one is dealt with in the usual way."""

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise StoppedEarly(f"{where}: stopped by {signal.Signals(number).name}; {after}")

    with handled(stop):
        yield
