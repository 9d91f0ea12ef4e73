"""What holds for all tests: examples are counted, half as many as usual, and may take long."""

import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["bigbox.testing.exercised", "pytester"]

settings.register_profile(
    "untimed", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def no_bench_of_this_user() -> Iterator[None]:
    """What `bigbox bench` once measured here is no business of the tests, nor theirs of it."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", folder)
        yield
