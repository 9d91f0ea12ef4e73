"""What holds for all unit tests: no example fails for taking long; half as many as usual."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "untimed",
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def no_bench_of_this_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `bigbox bench` once measured here is no business of the tests, nor theirs of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
