"""What holds for all tests: examples are counted, half as many as usual, and may take long."""

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["bigbox.testing.exercised", "pytester"]

# The same examples in every run, so that CI is not red by chance; others with BIGBOX_RANDOM=1.
settings.register_profile(
    "untimed",
    max_examples=50,
    deadline=None,
    derandomize="BIGBOX_RANDOM" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def no_bench_of_this_user() -> Iterator[None]:
    """What `bigbox bench` once measured here is no business of the tests, nor theirs of it."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", folder)
        yield
