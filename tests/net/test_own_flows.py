"""The record of this process's own flows."""

from __future__ import annotations

import os
import socket
from threading import Thread

import pytest

from simopen.model.endpoint import Endpoint
from simopen.model.times import MonoNs
from simopen.net.own_flows import MOST, Flow, Flows

SERVER = Endpoint("192.0.2.1", 3478)


def test_what_left_then_or_later_is_told_in_order() -> None:
    own = Flows()
    for at_ns in (7, 3, 5):
        own.note(Flow(True, 1314, SERVER, MonoNs(at_ns)))
    assert [flow.at_ns for flow in own.since(MonoNs(5))] == [5, 7]


def test_a_socket_tells_its_protocol_and_its_port() -> None:
    own = Flows()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        own.note_socket(sock, SERVER, MonoNs(9))
        assert own.since(MonoNs(0)) == (Flow(False, sock.getsockname()[1], SERVER, MonoNs(9)),)


def test_of_very_many_the_latest_are_kept() -> None:
    own = Flows()
    for at_ns in range(MOST + 5):
        own.note(Flow(True, 1, SERVER, MonoNs(at_ns)))
    assert len(own.since(MonoNs(0))) == MOST
    assert own.since(MonoNs(0))[0].at_ns == 5


def test_a_port_is_judged_until_the_last_time() -> None:
    own = Flows()
    assert own.judged_until(1314) is None
    own.judge(1314, MonoNs(5))
    own.judge(1314, MonoNs(9))
    assert own.judged_until(1314) == 9


def test_threads_note_and_ask_at_once() -> None:
    own = Flows()

    def busy(port: int) -> None:
        for at_ns in range(2000):
            own.note(Flow(True, port, SERVER, MonoNs(at_ns)))
            own.since(MonoNs(at_ns))

    threads = [Thread(target=busy, args=(port,)) for port in range(1, 4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(own.since(MonoNs(0))) == 6000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_was_forked_goes_on_with_what_was_noted() -> None:
    own = Flows()
    own.note(Flow(True, 1, SERVER, MonoNs(1)))
    child = os.fork()
    if not child:
        own.note(Flow(True, 1, SERVER, MonoNs(2)))
        os._exit(len(own.since(MonoNs(0))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert len(own.since(MonoNs(0))) == 1
