"""Who does the slow work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Threads:
    """One thread a queue: painting, loading, committing and assembling overlap."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._ended = threading.Event()

    def submit(self, queue: str, job: Callable[..., Any], *args: Any) -> Future[Any]:
        """Queue a job; jobs of one queue run one after the other in the order of submission."""
        pool = self._pools.get(queue)
        if pool is None:
            pool = self._pools[queue] = ThreadPoolExecutor(1, thread_name_prefix=queue)
        future = pool.submit(job, *args)
        future.add_done_callback(lambda _: self._ended.set())
        return future

    def wait(self, seconds: float) -> None:
        """Return when a job has ended, after `seconds` at the latest."""
        self._ended.wait(seconds)
        self._ended.clear()

    def close(self) -> None:
        """Wait for the jobs that run."""
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)


Workers = Threads  # or what takes their place in a test
