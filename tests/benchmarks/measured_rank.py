"""`bigbox` as one rank runs it, leaving its report and its peak memory beside: for engine.py.

    python -m tests.benchmarks.measured_rank REPORT.json paint BOX [options]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil

from bigbox import cli
from bigbox.engine import run


def main() -> int:
    report = Path(sys.argv[1])
    paint = run.paint

    def remembering(options: run.PaintOptions) -> dict[str, object]:
        numbers = paint(options)
        report.write_text(json.dumps(numbers))
        return numbers

    run.paint = remembering
    try:
        return cli.main(sys.argv[2:])
    finally:
        status = Path(f"/proc/{os.getpid()}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        kib = int(peak.split()[1]) if peak else psutil.Process().memory_info().rss >> 10
        Path(f"{report}.{os.getpid()}").write_text(json.dumps(kib / 1024))


if __name__ == "__main__":
    sys.exit(main())
