"""Both loops for every async test, no skip where none is allowed, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import inspect
import os
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from simopen import lab
from tests.loops import EndingLoop

os.environ.pop("PS1", None)  # an activated environment's: a shell under test would greet with it

ROOT = Path(__file__).parents[1]
# Set by CI, which has the lab and every real server: a skip there would be a hole in the evidence.
NO_SKIP = bool(os.environ.get("SIMOPEN_NO_SKIP"))
NEVER_SKIPPED = ("lab", "real_server")
# What is told to close does so within some turns of the loop, or when its thread next looks: this long at most.
TURNS, TURN_S, COLLECTED = 200, 0.005, 20
# What the tests start, a thousand interpreters, compiles the package once and not each time anew; finds no rendezvous
# and no peers of whoever runs the suite; and hears Ctrl-C and a terminal's end, which a shell's job in the background,
# or nohup's, is made to ignore, with all that it starts.
for name in ("PYTHONDONTWRITEBYTECODE", "SIMOPEN_VIA", "SIMOPEN_CODE"):
    os.environ.pop(name, None)
_homes = tempfile.TemporaryDirectory(prefix="simopen-tests-")
os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_DATA_HOME"] = _homes.name
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
# An example that takes long says that the machine is busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": EndingLoop}


@functools.cache
def no_lab(*, router: bool = False) -> str | None:
    return lab.available(router=router)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if (marker := item.get_closest_marker("lab")) and (reason := no_lab(**marker.kwargs)):
        pytest.skip(f"no lab: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Thousands of tests stay to the end: no search for garbage need look through them, now or later."""
    gc.disable()
    try:
        load_from_anywhere(session.config.args)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first, a lab's and those of whole commands: at the end nobody shall wait for one of them."""
    commands = ROOT / "tests" / "cli"
    items.sort(key=lambda item: not (item.get_closest_marker("lab") or item.path.is_relative_to(commands)))


def load_from_anywhere(arguments: Sequence[str]) -> None:
    """Load the test files in a turn of one's own: each of pytest's processes begins at another one.

    In one and the same order, all would compile every file at the same time, some seconds each; so, each finds most of
    them compiled. What cannot be loaded fails again when it is collected, and that is told.
    """
    number, processes = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    if processes == "1":
        return
    named = (Path(argument.partition("::")[0]).resolve() for argument in arguments)
    files = [file for path in named for file in (sorted(path.rglob("test_*.py")) if path.is_dir() else [path])]
    begin = len(files) * int(number.removeprefix("gw")) // int(processes)
    for file in files[begin:] + files[:begin]:
        if file.is_relative_to(ROOT):
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if NO_SKIP and report.skipped and any(item.get_closest_marker(name) for name in NEVER_SKIPPED):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may skip: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tasks, threads, sockets: an async test's are looked at from inside its loop, before that is closed."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("nothing_left_in_loop")
    yield
    for thread in our_threads():
        thread.join(TURNS * TURN_S)
    assert not our_threads(), "a thread was left behind"


@pytest.fixture
async def nothing_left_in_loop() -> AsyncIterator[None]:
    sockets, tasks = open_sockets(), asyncio.all_tasks()
    yield
    for turn in range(TURNS):
        left = (asyncio.all_tasks() - tasks - {asyncio.current_task()}, our_threads(), max(0, open_sockets() - sockets))
        if not any(left):
            return
        if turn % COLLECTED == 0:  # each time it keeps all from running for as long as many turns take
            gc.collect()
        await asyncio.sleep(TURN_S)
    pytest.fail("left behind: tasks {}, threads {}, sockets {}".format(*left))


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("simopen-")]


def open_sockets() -> int:
    """How many there are. Not which: uvloop has a new pair of its own each time it is entered."""
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(fd).startswith("socket:")
    return found
