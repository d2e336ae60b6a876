"""The guards of conftest.py bite: each is shown a test that leaves something behind."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
LEAKS = {
    "task": "kept.append(asyncio.create_task(asyncio.sleep(3600)))",
    "thread": "t = threading.Thread(target=STOP.wait, name='simopen-x', daemon=True); t.start()",
    "socket": "kept.append(socket.socket())",
}


@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_fails_the_test_that_leaks(kind: str, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.read_text().replace("= 200, 0.005", "= 2, 0.005"))
    pytester.makepyfile(
        f"""
        import asyncio, socket, threading
        kept, STOP = [], threading.Event()
        async def test_it():
            {LEAKS[kind]}
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-o", "asyncio_mode=auto")
    assert result.parseoutcomes()["errors"] >= 2  # one on each loop


def test_a_skip_fails_where_nothing_may_skip(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.read_text().replace("NO_SKIP = bool", "NO_SKIP = True or bool"))
    pytester.makeini("[pytest]\nmarkers = real_server: x")
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.real_server
        def test_it():
            pytest.skip("no server")
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(failed=1)
