"""Some of each kind of what must keep holding; all of it takes `make soak`. And the soak itself bites."""

from __future__ import annotations

import subprocess
import sys
from random import Random

import pytest

from tests.soak import kinds
from tests.soak.kinds import KINDS, Kind, run

# What takes a second or two of each at most.
SOME = {
    "tickets": 2000,
    "frames": 3000,
    "rendezvous-server": 600,
    "stun-requests": 3000,
    "stun": 3000,
    "ntp": 3000,
    "cancellations": 24,
    "signals": 2,
    "errors": 8,
    "descriptors": 3,
    "strangers": 1,
    "spoilt": 60,
    "garbage": 1,
    "link-cancellations": 40,
    "meeting-cancellations": 30,
    "threads": 1,
    "transfer-cuts": 8,
    "transfer-cancellations": 6,
    "transfer-kills": 1,
    "transfer-interrupts": 1,
}


@pytest.mark.parametrize("name", SOME)
def test_some_of_each_kind_hold(name: str) -> None:
    failures = run(name, range(SOME[name]))
    assert not failures, "\n".join(map(str, failures))


def test_all_of_each_kind_are_as_many_as_once_held() -> None:
    assert set(SOME) == set(KINDS)
    full = {name: kind.units(1.0) * kind.at_once for name, kind in KINDS.items()}
    assert all(full[name] >= kind.total for name, kind in KINDS.items())
    assert KINDS["strangers"].units(0.001) == 1


def odd_ones_fail(chance: Random) -> None:
    if chance.random() < 0.5:
        raise AssertionError("an odd one")


def test_what_fails_is_told_with_the_number_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.KINDS, "odd", Kind(100, odd_ones_fail))
    failures = run("odd", range(100))
    assert 20 < len(failures) < 80
    assert all("an odd one" in str(each) and f"odd {each.number}" in str(each) for each in failures)
    assert run("odd", [each.number for each in failures]) == failures


@pytest.mark.parametrize("descriptors", [5, 11])
def test_a_command_that_can_have_no_loop_says_so(descriptors: int) -> None:
    """uvloop would end the process by SIGABRT, or leave a traceback."""
    command = [sys.executable, "-m", "tests.soak.limited", str(descriptors), "self", "1314"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"open files at once, and this process may have {descriptors}" in done.stderr
