"""What the demo tells of each side, and that it runs."""

from __future__ import annotations

import json
import signal
import socket
import sys

import pytest

from simopen.cli.demo import _took, _two_ports
from simopen.net.sockets import open_socket
from tests.cli.processes import read_until, running, simopen_run


@pytest.mark.parametrize("elapsed_s", [0.0, 0.0814])
def test_how_long_it_took_is_told_however_short_that_was(elapsed_s: float) -> None:
    """On loopback a stream may be dated at its SYN: the kernel counts the time since in jiffies."""
    told = _took({"report": {"elapsed_s": elapsed_s, "late_s": 5e-6}})
    assert told == f"   (connected {elapsed_s * 1e3:.1f} ms after its SYN, which left 5 µs after the instant)"


@pytest.mark.parametrize("said", [{}, {"report": None}, {"report": {"elapsed_s": None, "late_s": 0.0}}])
def test_where_nobody_was_met_nothing_is_told(said: dict[str, object]) -> None:
    assert not _took(said)


@pytest.mark.lab
def test_the_demo_terminated_leaves_no_process() -> None:
    with running("demo", program=[sys.executable, "-u", "-m", "simopen"]) as it:
        assert it.process.stdout is not None
        read_until(it.process.stdout.fileno(), b"Both fire")
        it.process.send_signal(signal.SIGTERM)
        status, _, said = it.end()
        assert (status, said) == (143, "simopen: terminated; everything is closed\n")


@pytest.mark.lab
def test_the_demo() -> None:
    status, out, said = simopen_run("demo")
    assert (status, said) == (0, "")
    assert out.decode().count("I love you.") == 2
    assert "SYN-RECEIVED" in out.decode()
    assert len({line.index("simopen connect") for line in out.decode().splitlines() if "$ " in line}) == 1
    assert "The SYNs crossed" in out.decode()


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "127.0.0.2"])
def test_the_demos_ports_are_given_to_nobody_else_meanwhile(address: str) -> None:
    with _two_ports() as ports:
        for port in ports:
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((address, port))
            open_socket((address, port), socket.AF_INET).close()


def test_the_demo_on_loopback() -> None:
    status, out, said = simopen_run("demo", "--loopback")
    assert (status, said) == (0, "")
    assert out.decode().count("I love you.") == 2


def test_the_demo_as_json() -> None:
    status, out, _ = simopen_run("demo", "--loopback", "--json")
    assert status == 0
    told = json.loads(out)
    assert told["heard"] == {"left": "I love you.", "right": "I love you."}
    assert told["left"]["report"]["remote"].startswith("127.0.0.1:")
