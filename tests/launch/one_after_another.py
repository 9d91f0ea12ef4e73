"""Run several `bigbox` commands one after the other in the same ranks, for tests of their bytes.

    mpirun -n 4 python -m tests.launch.one_after_another COMMANDS.json

COMMANDS.json is a list of argument lists. Ends with the first status that is not 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bigbox.cli import main

for command in json.loads(Path(sys.argv[1]).read_text()):
    if status := main(command):
        print(f"status {status}: {command}", file=sys.stderr)
        sys.exit(status)
