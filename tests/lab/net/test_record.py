"""Questions to a record, on passages made by hand: what counts as crossed, and as opened simultaneously."""

from __future__ import annotations

from pathlib import Path

import dpkt
import pytest

from simopen.lab.net.record import Origin, Passage, Record, Verdict
from simopen.model.endpoint import Endpoint
from tests.lab.packets import tcp

SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
# Behind its NAT, left has a private address; right has none.
INSIDE, LEFT, RIGHT = ("192.168.1.2", 1314), ("198.51.100.1", 1314), ("203.0.113.1", 1314)


def from_left(
    flags: int, sent: int, received: int | None, seq: int = 100, verdict: Verdict = Verdict.DELIVERED
) -> Passage:
    data = None if received is None else tcp(LEFT, RIGHT, flags, seq=seq)
    return Passage("left", "right", Origin.HOST, verdict, sent, received, tcp(INSIDE, RIGHT, flags, seq=seq), data)


def from_right(
    flags: int, sent: int, received: int | None, seq: int = 900, verdict: Verdict = Verdict.DELIVERED
) -> Passage:
    data = None if received is None else tcp(RIGHT, INSIDE, flags, seq=seq)
    return Passage("right", "left", Origin.HOST, verdict, sent, received, tcp(RIGHT, LEFT, flags, seq=seq), data)


CROSSED = [from_left(SYN, 0, 40), from_right(SYN, 10, 50)]
ANSWERED = [from_right(SYN_ACK, 41, 81), from_left(SYN_ACK, 51, 91)]


@pytest.mark.parametrize(
    ("passages", "crossed"),
    [
        pytest.param(CROSSED, True, id="in flight together"),
        pytest.param([from_left(SYN, 0, 40), from_right(SYN, 41, 81)], False, id="one after the other"),
        pytest.param(
            [from_left(SYN, 0, None, verdict=Verdict.FILTERED), from_right(SYN, 41, 81)], True, id="one dropped"
        ),
        pytest.param([from_left(SYN, 0, None, verdict=Verdict.LOST), from_right(SYN, 41, 81)], True, id="one lost"),
        pytest.param(
            [from_left(SYN, 0, None, verdict=Verdict.RESET), from_right(SYN, 41, 81)], False, id="one refused"
        ),
        pytest.param(
            [from_left(SYN, 0, None, verdict=Verdict.LOST), from_right(SYN, 1, None, verdict=Verdict.LOST)],
            False,
            id="both lost",
        ),
        pytest.param(CROSSED[:1], False, id="one alone"),
        pytest.param([from_left(SYN, 0, 40), from_right(SYN_ACK, 41, 81)], False, id="an ordinary opening"),
        pytest.param([], False, id="nothing"),
    ],
)
def test_syns_cross_where_each_was_sent_before_the_other_came(passages: list[Passage], crossed: bool) -> None:
    record = Record(passages)
    assert record.syns_crossed("left", "right") is crossed
    assert record.syns_crossed("right", "left") is crossed


def test_syns_of_two_connections_do_not_cross() -> None:
    other = tcp(("203.0.113.1", 9), LEFT, SYN)
    arrived = tcp(("203.0.113.1", 9), INSIDE, SYN)
    stray = Passage("right", "left", Origin.HOST, Verdict.DELIVERED, 10, 50, other, arrived)
    assert not Record([from_left(SYN, 0, 40), stray]).syns_crossed("left", "right")


@pytest.mark.parametrize(
    ("passages", "simultaneously"),
    [
        pytest.param(CROSSED + ANSWERED, True, id="both answer with their own sequence number"),
        pytest.param(CROSSED + ANSWERED[:1], True, id="one answers"),
        pytest.param(CROSSED, False, id="nobody answers"),
        pytest.param([*CROSSED, from_right(SYN_ACK, 41, 81, seq=7777)], False, id="a listener answers"),
        pytest.param([*CROSSED, ANSWERED[0], from_left(SYN_ACK, 51, 91, seq=7)], False, id="the other's listener"),
        pytest.param([*CROSSED, from_right(SYN_ACK, 41, None, verdict=Verdict.LOST)], False, id="the answer is lost"),
        pytest.param([from_left(SYN, 0, 40), from_right(SYN_ACK, 41, 81)], False, id="an ordinary opening"),
    ],
)
def test_an_opening_is_simultaneous_without_a_listener(passages: list[Passage], simultaneously: bool) -> None:
    record = Record(passages)
    assert record.opened_simultaneously("left", "right") is simultaneously
    assert record.opened_simultaneously("right", "left") is simultaneously


def test_a_record_is_a_sequence() -> None:
    record = Record(CROSSED + ANSWERED)
    assert (len(record), record[0], record[-1]) == (4, CROSSED[0], ANSWERED[1])
    assert isinstance(record[1:], Record)
    assert list(record.syns("left", "right")) == [CROSSED[0]]
    assert list(record.between("right", "left")) == [CROSSED[1], ANSWERED[0]]


@pytest.mark.parametrize(("host", "times"), [(None, [0, 10, 41, 51]), ("left", [0, 50, 51, 81]), ("core", [])])
def test_a_capture_file_has_what_a_host_saw(tmp_path: Path, host: str | None, times: list[int]) -> None:
    path = tmp_path / "record.pcap"
    Record(CROSSED + ANSWERED).to_pcap(path, host)
    with path.open("rb") as file:
        packets = list(dpkt.pcap.Reader(file))
    assert [round(float(time) * 1e9) for time, _ in packets] == times
    sources = {dpkt.ip.IP(data).src for _, data in packets}
    assert len(sources) == (2 if times else 0)


def test_a_passage_reads_its_packets() -> None:
    passage = from_left(SYN, 0, 40)
    assert passage.received is not None
    assert (passage.sent.source, passage.received.source) == (Endpoint(*INSIDE), Endpoint(*LEFT))
    assert from_left(SYN, 0, None).received is None
