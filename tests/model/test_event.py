"""Events read as lines of words, and cannot be changed by whoever is told."""

from __future__ import annotations

import dataclasses
import errno

import pytest

import simopen
from simopen.clock import source as clock
from simopen.model.endpoint import Endpoint
from simopen.model.report import Attempt, Via
from simopen.model.times import MonoNs, UtcNs

PEER = Endpoint("203.0.113.7", 1314)
AT_NS = MonoNs(5_000_000_000)
REFUSED = Attempt(PEER, AT_NS, AT_NS, MonoNs(AT_NS + 80_000_000), errno.ECONNREFUSED)
ALL = (
    (simopen.Resolved(AT_NS, (PEER,)), "resolved", "to fire at 203.0.113.7:1314"),
    (simopen.ClockKnown(AT_NS, clock.plain(), UtcNs(AT_NS)), "clock known", "the clock: unchecked"),
    (
        simopen.ClockKnown(AT_NS, clock.plain(), UtcNs(AT_NS), "no answer"),
        "clock known",
        "the clock: unchecked; no answer",
    ),
    (simopen.Armed(AT_NS, MonoNs(AT_NS + 1_500_000_000)), "armed", "armed, 1.500 s before the instant"),
    (simopen.Fired(AT_NS, PEER), "fired", "SYN to 203.0.113.7:1314"),
    (
        simopen.Answered(AT_NS, REFUSED),
        "answered",
        "SYN to 203.0.113.7:1314: answered by RST, 80.0 ms later",
    ),
    (simopen.Up(AT_NS, PEER, Via.ACCEPT), "up", "up: 203.0.113.7:1314, by accept"),
    (simopen.Verified(AT_NS, PEER), "verified", "verified: 203.0.113.7:1314 holds the key"),
    (simopen.PeerBegun(AT_NS), "peer begun", "somebody is in the room"),
    (simopen.SessionUp(AT_NS, "laptop"), "session up", "laptop is here"),
    (simopen.SessionDown(AT_NS, "laptop"), "session down", "the stream to laptop is over"),
    (simopen.SessionDown(AT_NS, "laptop", "reset"), "session down", "the stream to laptop is over: reset"),
    (simopen.SessionBack(AT_NS, "laptop", 2, 1.5), "session back", "laptop is back, after 1.5 s"),
    (
        simopen.SessionWaits(AT_NS, "laptop", 0.25, "nobody answers"),
        "session waits",
        "laptop was not met: nobody answers; the next try comes in 250 ms",
    ),
)


@pytest.mark.parametrize(("event", "step", "words"), ALL)
def test_an_event_is_frozen_named_and_reads_as_a_line(event: simopen.Event, step: str, words: str) -> None:
    assert isinstance(event, simopen.Event)
    assert (event.step, str(event)) == (step, words)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.at_ns = MonoNs(0)  # type: ignore[misc]
    assert not hasattr(event, "__dict__")


def test_what_this_host_refused_to_send_was_not_answered() -> None:
    assert not dataclasses.replace(REFUSED, errno=errno.ENETUNREACH, immediate=True).answered
    assert not dataclasses.replace(REFUSED, errno=errno.ETIMEDOUT).answered
    assert not dataclasses.replace(REFUSED, errno=None).answered
    assert dataclasses.replace(REFUSED, errno=errno.ENETUNREACH).answered
    assert dataclasses.replace(REFUSED, immediate=True).answered
