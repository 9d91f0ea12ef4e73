"""`python -m bigbox` is `bigbox`."""

import sys

from bigbox.cli import main

sys.exit(main())
