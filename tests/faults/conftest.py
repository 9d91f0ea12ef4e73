"""Where the fault tests paint."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boxes import scratch


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory where there is one."""
    with scratch() as folder:
        yield folder
