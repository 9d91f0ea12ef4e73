"""Run `bigbox` as `python -m bigbox`."""

import sys

from bigbox.cli import main

sys.exit(main())
