"""`bigbox` as one rank runs it, for engine.py:

    python -m tests.benchmarks.measured_rank REPORT.json paint BOX [options]

leaves the report of the first rank in REPORT.json, and each rank's peak memory (MiB) and CPU time
(s, from the start of Python) beside it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from bigbox import cli
from bigbox.engine import run
from bigbox.engine.mpi import launched


def main() -> int:
    report = Path(sys.argv[1])
    paint = run.paint

    def remembering(options: run.PaintOptions) -> dict[str, object]:
        numbers = paint(options)
        if launched()[2] == 0:
            report.write_text(json.dumps(numbers))
        return numbers

    run.paint = remembering
    try:
        return cli.main(sys.argv[2:])
    finally:
        # VmHWM begins anew with the process; ru_maxrss would begin with the parent's at the fork.
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        mine = {"peak_mib": peak / 1024, "cpu": time.process_time()}
        Path(f"{report}.{os.getpid()}").write_text(json.dumps(mine))


if __name__ == "__main__":
    sys.exit(main())
