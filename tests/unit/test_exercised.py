"""Property tests that do nothing fail, and the table says what each did."""

from __future__ import annotations

import pytest

HEAD = """
    from hypothesis import assume, given, settings, strategies as st
    from bigbox.testing.exercised import worked
    import pytest
"""
# What a test does with a number from 0 to 99, and whether that is enough.
BODIES = {
    "worked()": True,
    "worked(n + 1)": True,
    "worked(n >= 0)": True,
    "worked(0), worked(1), worked(0)": True,
    "pass": False,
    "worked(0)": False,
    "if n < 60: return\n        worked()": False,
    "assume(n >= 60)\n        worked()": False,
    "worked()\n        assume(n >= 60)": False,
}


def report(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + source)
    plugin = ("-p", "bigbox.testing.exercised", "-p", "no:cacheprovider")
    return pytester.runpytest_inprocess(*plugin, *options)


@pytest.mark.parametrize(("body", "enough"), BODIES.items())
def test_too_little_work_fails(pytester: pytest.Pytester, body: str, enough: bool) -> None:
    result = report(
        pytester,
        f"""
    @settings(max_examples=60, database=None)
    @given(st.integers(0, 99))
    def test_it(n):
        {body}
    """,
    )
    result.assert_outcomes(passed=int(enough), failed=int(not enough))
    if not enough:
        result.stdout.re_match_lines([r"only \d+ of \d+ examples did real work, less than 80%.*"])


def test_each_test_is_counted_alone_and_shown(pytester: pytest.Pytester) -> None:
    result = report(
        pytester,
        """
    @pytest.mark.parametrize("really", [1, 0])
    @settings(max_examples=10, database=None)
    @given(st.integers())
    def test_either(really, n):
        worked(really)

    class TestOfAClass:
        @settings(max_examples=10, database=None)
        @given(st.integers())
        def test_it(self, n):
            worked()

    @settings(max_examples=10, database=None)
    @given(st.integers())
    def test_that_is_wrong(n):
        assert n == 1

    @given(st.integers())
    def test_that_is_skipped(n):
        pytest.skip("not here")

    def test_without_examples():
        worked()
    """,
    )
    result.assert_outcomes(passed=3, failed=2, skipped=1)
    result.stdout.fnmatch_lines(
        ["*what the property tests exercised*"]
        + ["* 10 examples  100% worked  *::TestOfAClass::test_it"]
        + ["* 20 examples   50% worked  *::test_either"]
    )
    result.stdout.no_fnmatch_line("*worked*test_that_is_wrong")
    result.stdout.no_fnmatch_line("*worked*test_without_examples")


def test_no_table_without_property_tests(pytester: pytest.Pytester) -> None:
    result = report(pytester, "\n    def test_it():\n        worked()\n")
    result.stdout.no_fnmatch_line("*exercised =*")
