"""The commands, as programs: ended by signals at any moment, and short of descriptors."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from tests.loopback import HERE, THERE, kept_ports

LIMIT_S = 60.0
"""No command here is asked for more than some seconds."""
STATUSES = {0, 1, 2, 130, 143}
FEWEST_DESCRIPTORS, MOST_DESCRIPTORS = 3, 69
CALLS = ("connect", "discover", "check_clock", "connect_self")


@contextlib.contextmanager
def commands() -> Iterator[list[list[str]]]:
    """Command lines that have something to wait for: servers that never answer, a peer that never comes."""
    with kept_ports() as (mine, theirs), socket.socket() as stun, socket.socket(type=socket.SOCK_DGRAM) as ntp:
        for sock in (stun, ntp):
            sock.bind((HERE, 0))
        stun.listen()
        stun_name, ntp_name = (f"{HERE}:{sock.getsockname()[1]}" for sock in (stun, ntp))
        local = ["--local-address", HERE, "--local-port", str(mine)]
        connect = ["connect", THERE, str(theirs), *local]
        yield [
            [*connect, "--no-ntp", "--window", "1"],
            [*connect, "--at", "+1s", "--window", "1", "--ntp", ntp_name],
            [*connect, "--at", "next:2s", "--window", "1", "--no-ntp"],
            ["nat", "--stun", stun_name, "--timeout", "1"],
            ["nat", "--ticket", "--stun", stun_name, "--timeout", "1", "--no-ntp"],
            ["clock", "--ntp", ntp_name, "--timeout", "1"],
            ["doctor", "--stun", stun_name, "--ntp", ntp_name, "--timeout", "1"],
            ["self", str(mine)],
            ["demo", "--loopback"],
        ]


def sent_signal(chance: Random) -> None:
    """A command gets a signal, alone or with all its children, and ends: by a sentence, without children."""
    with commands() as all_of_them:
        words = chance.choice(all_of_them)
        number, alone, wait_s = (
            chance.choice((signal.SIGINT, signal.SIGTERM)),
            chance.random() < 0.5,
            chance.uniform(0, 1.5),
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "simopen", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            time.sleep(wait_s)
            with contextlib.suppress(ProcessLookupError):
                (os.kill if alone else os.killpg)(process.pid, number)
            ended = _ended(process, words, closes=chance.random() < 0.5)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    about = f"{' '.join(words)}, {number.name} after {wait_s:.3f} s: {ended}"
    status, said = ended
    # Before it has come as far as this project's code, a signal is the interpreter's own affair.
    ours = "simopen/" in said
    assert not (ours and "Traceback" in said), about
    assert status in STATUSES | {-number} or not ours, about


def _ended(process: subprocess.Popen[bytes], words: Sequence[str], *, closes: bool) -> tuple[int, str]:
    """Its exit status and what it said, its standard input left open or closed."""
    stdin = process.stdin
    if not closes:
        process.stdin = None
    try:
        _, said = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{' '.join(words)}: never ended") from None
    finally:
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
    left = _living(process.pid)
    assert not left, f"{' '.join(words)}: left children behind: {left}"
    return process.returncode, said.decode()


def _living(group: int) -> list[str]:
    """The processes of a group that still run; a dead one that nobody has waited for yet does no harm."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            state, _, its_group = text.rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(text)
    return found


def few_descriptors(chance: Random) -> None:
    """A command or a call that may open only so many descriptors ends by a sentence, or by an error of this library."""
    with commands() as all_of_them:
        words = chance.choice([*all_of_them, *([name] for name in CALLS)])
        limit = chance.randint(FEWEST_DESCRIPTORS, MOST_DESCRIPTORS)
        command = [sys.executable, "-m", "tests.soak.limited", str(limit), *words]
        try:
            done = subprocess.run(command, input=b"x\n", capture_output=True, timeout=LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{' '.join(words)}, {limit} descriptors: never ended") from None
    said = done.stderr.decode()
    assert "Traceback" not in said, f"{' '.join(words)}, {limit} descriptors: {said}"
    assert done.returncode in {0, 1}, f"{' '.join(words)}, {limit} descriptors: {done.returncode}: {said}"
