"""Workers that join, leave and die while one box is painted: `python -m tests.campaign.elastic`.

A dask scheduler, its workers (forked from a server that has imported what they need), and the real
`bigbox paint --workers`. A worker leaves by SIGKILL or by closing; another joins. In the end the
bytes must be those of an undisturbed painting.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.boxes import new_box, scratch
from tests.campaign.place import values_of
from tests.faults.commands import Commands

OPTIONS = ("--painter", "trivial", "--tile", "16", "--steps", "2", "--quiet")


def work(address: str, folder: str) -> None:
    """Be a worker until the end."""
    import dask
    from distributed import Worker

    dask.config.set({"distributed.worker.memory.terminate": False})

    async def serve() -> None:
        worker = await Worker(address, nthreads=1, local_directory=folder, dashboard=False)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: asyncio.ensure_future(worker.close()))
        await worker.finished()

    with suppress(Exception):
        asyncio.run(serve())


def churn(
    leaves: int, at_once: int, apart: float, rng: random.Random, folder: Path
) -> dict[str, Any]:
    """Paint a box while workers leave and join, `apart` seconds at most; return what happened."""
    import dask
    from distributed import LocalCluster

    dask.config.set({"distributed.scheduler.allowed-failures": 10 * leaves + 10})
    box, _ = new_box(folder, (64, 64, 64), seed=3)
    whole, _ = new_box(folder / "whole", (64, 64, 64), seed=3)
    assert Commands(whole).run("paint", whole, *OPTIONS, timeout=600).status == 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.campaign.elastic_preloaded"])
    workers: list[Any] = []
    told = {"joined": 0, "killed": 0, "closed": 0}
    began = time.monotonic()
    with LocalCluster(
        n_workers=0, dashboard_address=None, processes=False, protocol="tcp://", host="127.0.0.1"
    ) as cluster:
        address = f"tcp://127.0.0.1:{_listening(cluster)}"

        def join() -> None:
            place = folder / f"worker-{told['joined']}"
            workers.append(context.Process(target=work, args=(address, str(place))))
            workers[-1].start()
            told["joined"] += 1

        for _ in range(at_once):
            join()
        slowly = ("--seconds-per-tile", str(apart / 20))  # so that workers leave meanwhile
        painting = Commands(box).start(
            "paint", box, *OPTIONS, "--workers", address, "--worker-tiles", "4", *slowly
        )
        while told["killed"] + told["closed"] < leaves and painting.process.exitcode is None:
            time.sleep(rng.uniform(0.02, apart))
            one = workers.pop(rng.randrange(len(workers)))
            how = rng.choice(["killed", "killed", "closed"])
            one.kill() if how == "killed" else one.terminate()
            told[how] += 1
            join()
        ended = painting.ended(1800)
        told["seconds"] = round(time.monotonic() - began)
        for one in workers:
            one.kill()
    assert ended.status == 0, ended.said
    assert values_of(box, "tb") == values_of(whole, "tb"), "other bytes"
    assert Commands(box).run("verify", box).status == 0
    return told


def _listening(cluster: Any) -> int:
    return int(cluster.scheduler_address.rsplit(":", 1)[1])


def main() -> int:
    """Paint boxes until workers have left so many times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3, help="at a time")
    parser.add_argument("--apart", type=float, default=1.0, help="seconds between two, at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, left, boxes = random.Random(options.seed), options.leaves, 0
    total = {"joined": 0, "killed": 0, "closed": 0, "seconds": 0}
    while left > 0:
        with scratch() as folder:
            told = churn(left, options.workers, options.apart, rng, folder)
        print(told, flush=True)
        boxes += 1
        total = {key: value + told[key] for key, value in total.items()}
        left = options.leaves - total["killed"] - total["closed"]
    print(f"{boxes} boxes, the same bytes: {total}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
