"""What is logged, when, and that nothing reaches standard error unasked."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time

import pytest

import simopen
from simopen import _logs
from simopen.clock import scheduler
from simopen.clock.source import plain
from simopen.holepunch.trace import MOST_LOGGED
from simopen.model.times import MonoNs
from tests.fake_ntp import FakeNtp
from tests.loopback import HERE, THERE, ports
from tests.stalls import ALONE_S

__all__ = ["ports"]

UNASKED = """
{before}import simopen
import asyncio
import time

async def main():
    clock = simopen.Clock(["127.0.0.1:9"], ask_kernel=lambda: None)
    for _ in range(3):
        try:
            peer, here, at = ("127.0.0.2", 9), ("127.0.0.1", {port}), time.time() + 0.2
            await simopen.connect(peer, local=here, window=0.1, at=at, clock=clock)
        except simopen.PunchError as error:
            print(sum("clock" in note for note in error.report.notes))

asyncio.run(main())
{after}
"""


@pytest.mark.parametrize("before", ["", "import logging\n"])
def test_nothing_reaches_standard_error_unasked(before: str, ports: tuple[int, int]) -> None:
    """A clock that nobody has checked is a warning; whether logging was loaded before simopen does not matter."""
    program = UNASKED.format(
        before=before, port=ports[0], after="import logging; print(logging.getLogger('simopen').handlers)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["1", "1", "1", "[<NullHandler (NOTSET)>]"]


def test_a_program_that_has_logging_finds_the_handler_at_once() -> None:
    code = "import logging, simopen; print(logging.getLogger('simopen').handlers)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[<NullHandler (NOTSET)>]\n"


async def test_a_clocks_check_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "simopen")
    async with FakeNtp(3.5) as one, FakeNtp(3.5) as other:
        await simopen.check_clock([one.name, other.name])
    told = [record.getMessage() for record in caplog.records if record.name == "simopen.clock"]
    assert told[0] == "asking time servers: 2, for at most 3.0 s"
    assert {one.name, other.name} == {line.partition(": ")[0] for line in told[1:3]}
    assert told[3].startswith("add +3.")


async def test_a_punch_is_told_from_its_plan_to_its_end_and_its_shots_are_capped(
    caplog: pytest.LogCaptureFixture, ports: tuple[int, int]
) -> None:
    caplog.set_level(logging.DEBUG, "simopen")
    with pytest.raises(simopen.WindowClosed) as caught:
        await simopen.connect(
            (THERE, ports[1]), local=(HERE, ports[0]), at=time.time() + 0.2, window=ALONE_S, clock=plain()
        )
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == f"to fire at: {THERE}:{ports[1]}"
    assert told[1].startswith("the sockets are bound; the instant is ")
    shots = [line for line in told if f"SYN to {THERE}:{ports[1]}: answered by RST" in line]
    assert caught.value.report is not None
    assert len(shots) == MOST_LOGGED < len(caught.value.report.attempts)
    assert told[-2] == f"and {len(caught.value.report.attempts) - MOST_LOGGED} more"
    assert told[-1].startswith("no stream: ")


def untimely(caplog: pytest.LogCaptureFixture) -> int:
    return sum("after the instant" not in record.getMessage() for record in caplog.records)


async def test_nothing_is_logged_between_the_handover_and_the_end(
    caplog: pytest.LogCaptureFixture, ports: tuple[int, int]
) -> None:
    """To format and write a record takes the GIL: a shot would wait. (That it was late is told after it.)"""
    caplog.set_level(logging.DEBUG, "simopen")
    seen: list[int] = []
    at = time.time() + 1
    at_ns = time.monotonic_ns() + 1_000_000_000
    watching = scheduler.shared.at(MonoNs(at_ns + 50_000_000), lambda: seen.append(untimely(caplog)))
    punching = simopen.connect((THERE, ports[1]), local=(HERE, ports[0]), at=at, window=ALONE_S, clock=plain())
    _, failed = await asyncio.gather(watching, punching, return_exceptions=True)
    assert isinstance(failed, simopen.WindowClosed)
    assert seen == [2]  # where it fires, and when


def test_loggers_are_children_of_the_packages() -> None:
    assert _logs.logger("clock").name == "simopen.clock"
    assert _logs.logger("clock").parent is _logs.PACKAGE
