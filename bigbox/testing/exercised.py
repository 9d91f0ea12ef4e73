"""Count what property tests really exercised, and fail those that mostly did nothing.

A test that returns early for most of what hypothesis draws passes and shows nothing. This pytest
plugin watches every test that hypothesis drives. Such a test says where it has done its work::

    @given(tilings())
    def test_origins_ascend(tiling: Tiling) -> None:
        strides = np.diff(tiling.origins(axis=0))
        assert (strides > 0).all()
        worked(strides.size)

It fails where fewer than 80 % of its examples did any, and a table of all property tests ends the
report. To use it: ``pytest_plugins = ["bigbox.testing.exercised"]`` in the topmost conftest.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

import pytest
from hypothesis import is_hypothesis_test
from hypothesis.errors import UnsatisfiedAssumption

LEAST_SHARE = 0.8


@dataclass
class Exercise:
    """Examples of one property test, and those that did real work."""

    examples: int = 0
    worked: int = 0
    this_one: bool = False

    def watch(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """Return the body of a property test, counted whenever it returns or rejects an example."""

        @wraps(body)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.this_one = False
            try:
                result = body(*args, **kwargs)
            except UnsatisfiedAssumption:
                self.examples += 1
                raise
            self.examples += 1
            self.worked += self.this_one
            return result

        return watched


_current: ContextVar[Exercise | None] = ContextVar("exercise", default=None)


def worked(checked: int = 1) -> None:
    """Say that this example did real work if it checked any; several calls add up."""
    if (exercise := _current.get()) is not None and checked:
        exercise.this_one = True


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run a property test, and fail it where too few of its examples did real work."""
    if not is_hypothesis_test(pyfuncitem.obj):
        return (yield)
    exercise, handle = Exercise(), pyfuncitem.obj.hypothesis
    body, handle.inner_test = handle.inner_test, exercise.watch(handle.inner_test)
    token = _current.set(exercise)
    try:
        result = yield
    finally:
        _current.reset(token)
        handle.inner_test = body
    pyfuncitem.user_properties.append(("exercised", [exercise.examples, exercise.worked]))
    if exercise.worked < LEAST_SHARE * exercise.examples:
        pytest.fail(
            f"only {exercise.worked} of {exercise.examples} examples did real work, less than "
            f"{LEAST_SHARE:.0%}: draw what the test can use, and call worked() where it checks it",
            pytrace=False,
        )
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a row for each property test: examples, and the share that did real work."""
    rows: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for report in (r for reports in terminalreporter.stats.values() for r in reports):
        for name, value in getattr(report, "user_properties", ()):
            if name == "exercised" and report.when == "call":
                rows[report.nodeid.partition("[")[0]].append(tuple(value))
    if not rows:
        return
    terminalreporter.section("what the property tests exercised")
    for name, counts in sorted(rows.items()):
        examples, real = (sum(c) for c in zip(*counts, strict=True))
        share = real / examples if examples else 0.0
        terminalreporter.write_line(f"{examples:6} examples {share:5.0%} worked  {name}")
