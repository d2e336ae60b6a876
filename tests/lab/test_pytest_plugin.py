"""The fixture for other projects, in a pytest of its own."""

from __future__ import annotations

import pytest

CONFTEST = 'pytest_plugins = ["simopen.lab.pytest_plugin"]\n'
# A package that the lab needs is missing: a stand-in for a machine that cannot have one.
NO_LAB = f"""
import sys
sys.modules["dpkt"] = None
{CONFTEST}
"""
TEST = """
import pytest
from simopen import lab

@pytest.mark.asyncio
async def test_two_hosts(lab_network):
    left = await lab_network.host("left", nat=lab.Nat())
    await lab_network.host("right")
    done = await left.run(["echo", left.public_address])
    assert done.stdout == b"198.51.100.1\\n"
"""


def run(pytester: pytest.Pytester, conftest: str, mode: str = "strict") -> pytest.RunResult:
    pytester.makeconftest(conftest)
    pytester.makepyfile(TEST)
    options = ("-p", "no:xdist", f"--asyncio-mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function", "-rs")
    return pytester.runpytest_subprocess(*options, timeout=60)


@pytest.mark.lab
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_it_gives_an_entered_network(pytester: pytest.Pytester, mode: str) -> None:
    run(pytester, CONFTEST, mode).assert_outcomes(passed=1)


def test_without_a_lab_it_skips_and_says_why(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMOPEN_NO_SKIP", raising=False)
    done = run(pytester, NO_LAB)
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*no lab: the lab needs dpkt: pip install*"])


def test_where_nothing_may_skip_it_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMOPEN_NO_SKIP", "1")
    done = run(pytester, NO_LAB)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*no lab: the lab needs dpkt*SIMOPEN_NO_SKIP is set*"])


def test_nobody_gets_it_unasked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\ndef test_it():\n    assert 'simopen' not in sys.modules\n")
    done = pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:asyncio", timeout=60)
    done.assert_outcomes(passed=1)
