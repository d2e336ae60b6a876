"""What a program knows of its own calls' nonces: on which stream one may come, and that a child begins with nothing."""

from __future__ import annotations

import subprocess
import sys
import threading

from simopen.link.own_nonces import OwnNonces
from simopen.model.endpoint import Endpoint

ONE, OTHER, THIRD = (Endpoint("127.0.0.1", port) for port in (1, 2, 3))
NONCE = b"n" * 16


def test_a_strangers_nonce_is_nobodys_of_this_program() -> None:
    assert not OwnNonces().is_own(NONCE, (ONE, OTHER))


def test_one_that_this_program_sent_is_its_own_but_at_the_other_end_of_that_very_stream() -> None:
    own = OwnNonces()
    own.sends(NONCE, (ONE, OTHER))
    assert not own.is_own(NONCE, (OTHER, ONE))
    for ends in ((ONE, OTHER), (OTHER, THIRD), (THIRD, ONE), None):
        assert own.is_own(NONCE, ends)


def test_a_stream_that_is_gone_excuses_nothing_and_a_call_that_is_over_has_sent_nothing() -> None:
    own = OwnNonces()
    own.sends(NONCE, None)
    assert own.is_own(NONCE, (OTHER, ONE))
    own.sends(NONCE, (ONE, OTHER))
    own.has_closed(NONCE, (ONE, OTHER))
    assert own.is_own(NONCE, (OTHER, ONE))
    own.forget(NONCE)
    own.forget(NONCE)
    own.has_closed(NONCE, (ONE, OTHER))
    assert not own.is_own(NONCE, (OTHER, THIRD))


def test_threads_may_use_it_at_once() -> None:
    own = OwnNonces()

    def work(number: int) -> None:
        for turn in range(500):
            nonce = bytes([number]) + turn.to_bytes(15, "big")
            own.sends(nonce, (ONE, OTHER))
            assert own.is_own(nonce, (OTHER, THIRD))
            own.forget(nonce)

    failed: list[object] = []
    threads = [threading.Thread(target=work, args=(number,), name=f"own-{number}") for number in range(4)]
    threading.excepthook, before = failed.append, threading.excepthook
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = before
    assert not failed


def test_a_forked_child_begins_with_nothing() -> None:
    """Whoever it meets may be its parent: two programs, each with calls of its own. Its lock is free, too."""
    code = """
import os, threading
from simopen.link.own_nonces import shared
shared.sends(b"n" * 16, None)
with shared._lock:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if not shared.is_own(b"n" * 16, None) else 1)
assert shared.is_own(b"n" * 16, None)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
