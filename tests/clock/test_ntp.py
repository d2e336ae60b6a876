"""The wire: what is sent, what is believed, what is refused and why."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from dataclasses import dataclass

import ntplib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.clock import ntp
from simopen.clock.ntp import Answer, Answers, KissOfDeath, Refused, Stray, arrival_ns, parse, request, sample
from simopen.model.times import MonoNs, UtcNs
from tests.fake_ntp import MISBEHAVIOURS, packet

COOKIE = b"\x01cookie!"
GOOD = Answer(t2_ns=UtcNs(10_000), t3_ns=UtcNs(11_000), stratum=2, root_distance_ns=100)


@dataclass(frozen=True)
class Clocks:
    monotonic_ns: MonoNs
    realtime_ns: int


def test_importing_the_package_does_not_load_ntplib() -> None:
    code = "import sys, simopen, simopen.clock; sys.exit('ntplib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_query_is_version_4_mode_3_and_tells_nothing_but_the_cookie() -> None:
    assert request(COOKIE) == bytes([0b00_100_011]) + bytes(39) + COOKIE


def test_a_good_answer_is_believed_to_the_microsecond() -> None:
    receive_ns, transmit_ns = 1_800_000_000_123_456_789, 1_800_000_000_123_999_999
    data = packet(
        origin=COOKIE,
        reference=receive_ns - 1,
        receive=receive_ns,
        transmit=transmit_ns,
        root_delay_s=0.5,
        root_dispersion_s=0.125,
        precision=-10,
        stratum=3,
    )
    answer = parse(data, {COOKIE})
    assert abs(answer.t2_ns - receive_ns) <= ntp.ROUNDING_NS / 2
    assert abs(answer.t3_ns - transmit_ns) <= ntp.ROUNDING_NS / 2
    assert answer.stratum == 3
    assert answer.root_distance_ns == round(0.25e9 + 0.125e9 + 2**-10 * 1e9)


def test_extension_fields_after_the_header_are_passed_over() -> None:
    assert parse(packet(origin=COOKIE) + bytes(20), {COOKIE}).stratum == 2


def test_version_3_is_believed() -> None:
    assert parse(packet(origin=COOKIE, version=3), {COOKIE}).stratum == 2


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_a_misbehaving_server_is_refused_in_words(name: str) -> None:
    wrong, words = MISBEHAVIOURS[name]
    with pytest.raises(Refused, match=words):
        parse(packet(**({"origin": COOKIE} | wrong)), {COOKIE})


def test_a_kiss_that_is_no_answer_to_us_is_a_stray() -> None:
    with pytest.raises(Stray):
        parse(packet(stratum=0, origin=b"theirs!!"), {COOKIE})


def test_a_kiss_code_that_is_no_text_is_shown_as_bytes() -> None:
    with pytest.raises(KissOfDeath, match=r"b'\\x00\\n"):
        parse(packet(stratum=0, origin=COOKIE, reference_id=0x000A0001), {COOKIE})


@pytest.mark.parametrize("size", range(48))
def test_a_truncated_answer_is_refused(size: int) -> None:
    with pytest.raises(Stray, match=f"{size} bytes"):
        parse(packet(origin=COOKIE)[:size], {COOKIE})


@given(st.binary(max_size=100))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        parse(data, {COOKIE})


@given(st.dictionaries(st.integers(0, 47), st.integers(0, 255), min_size=1, max_size=12))
def test_a_damaged_answer_is_an_answer_or_refused(damage: dict[int, int]) -> None:
    data = bytearray(packet(origin=COOKIE))
    for at, byte in damage.items():
        data[at] = byte
    with contextlib.suppress(Refused):
        answer = parse(bytes(data), {COOKIE})
        assert 0 < answer.stratum < 16
        assert answer.t2_ns <= answer.t3_ns
        assert 0 <= answer.root_distance_ns < ntp.MAX_DISTANCE_S * 1e9


@given(st.integers(-61_505_152, 4_233_462_142), st.integers(1, 999_999_999))
def test_time_stamps_survive_from_1968_to_2104(seconds: int, ns: int) -> None:
    utc_ns = seconds * 1_000_000_000 + ns
    data = packet(origin=COOKIE, reference=utc_ns, receive=utc_ns, transmit=utc_ns)
    assert abs(parse(data, {COOKIE}).t3_ns - utc_ns) <= ntp.ROUNDING_NS / 2


def test_the_era_changes_in_2036() -> None:
    assert ntp.unix_ns(2**32 - 1) == 2_085_978_495 * 1_000_000_000
    assert ntp.unix_ns(0) == 2_085_978_496 * 1_000_000_000
    assert time.gmtime(2_085_978_496)[:6] == (2036, 2, 7, 6, 28, 16)


def test_ntplib_agrees_on_the_layout() -> None:
    theirs = ntplib.NTPPacket()
    theirs.from_data(packet(origin=COOKIE, root_delay_s=0.5, stratum=7, precision=-6))
    assert (theirs.stratum, theirs.precision, theirs.root_delay, theirs.mode) == (7, -6, 0.5, 4)


@given(
    offset=st.integers(-(10**12), 10**12),
    out=st.integers(0, 10**9),
    held=st.integers(0, 10**9),
    back=st.integers(0, 10**9),
)
def test_offset_and_delay_by_their_definition(offset: int, out: int, held: int, back: int) -> None:
    t2, t3 = out + offset, out + held + offset
    measured, delay = ntp.offset_and_delay(0, t2, t3, out + held + back)
    assert delay == out + back
    assert abs(measured - offset) <= delay / 2 + 1


def test_thirty_out_and_ten_back_is_an_error_of_ten() -> None:
    assert ntp.offset_and_delay(0, 30, 30, 40) == (10, 40)


class TestArrival:
    SENT = Clocks(monotonic_ns=MonoNs(1_000_000), realtime_ns=501_000_000)
    NOW = Clocks(monotonic_ns=MonoNs(3_000_000), realtime_ns=503_000_000)

    def test_the_kernels_stamp_is_mapped_to_the_monotonic_clock(self) -> None:
        assert arrival_ns(self.SENT, self.NOW, 502_000_000) == 2_000_000

    @pytest.mark.parametrize("stamp_ns", [None, 500_999_999, 503_000_001, 0, 2**63])
    def test_no_stamp_or_an_impossible_one_means_the_time_of_reading(self, stamp_ns: int | None) -> None:
        assert arrival_ns(self.SENT, self.NOW, stamp_ns) == self.NOW.monotonic_ns

    @pytest.mark.parametrize("step_ns", [-3_600_000_000_000, -500_000, 500_000, 3_600_000_000_000])
    def test_a_step_of_the_wall_clock_since_the_query_means_the_time_of_reading(self, step_ns: int) -> None:
        now = Clocks(MonoNs(3_000_000), 503_000_000 + step_ns)
        assert arrival_ns(self.SENT, now, 502_000_000) == 3_000_000
        assert arrival_ns(self.SENT, now, 502_000_000 + step_ns) == 3_000_000


def test_a_server_that_held_the_query_longer_than_it_was_away_is_refused() -> None:
    with pytest.raises(Refused, match="held the query"):
        sample("a", MonoNs(0), Answer(UtcNs(0), UtcNs(1_000_000), 2, 0), MonoNs(900_000))


def test_a_delay_below_zero_by_rounding_counts_as_none() -> None:
    assert sample("a", MonoNs(0), Answer(UtcNs(0), UtcNs(1_000_400), 2, 0), MonoNs(1_000_000)).delay_ns == 0


def answers(*delays_ns: int) -> Answers:
    return Answers("a", samples=[sample("a", MonoNs(0), GOOD, MonoNs(1_000 + delay)) for delay in delays_ns])


def test_the_best_sample_is_that_of_the_least_delay() -> None:
    best = answers(300, 100, 200).best
    assert best is not None
    assert best.delay_ns == 100
    assert answers().best is None


MS = 1_000_000


@pytest.mark.parametrize(
    ("delays_ns", "elapsed_s", "settled"),
    [
        ((), 9.0, False),
        ((MS,), 0.4, False),
        ((MS,), 0.5, True),
        ((MS, MS, MS), 0.4, False),
        ((MS, MS, 5 * MS, 5 * MS), 0.1, True),
        ((20 * MS, 22 * MS, 40 * MS, 40 * MS), 0.1, True),
        ((20 * MS, 23 * MS, 40 * MS, 40 * MS), 0.1, False),
        ((20 * MS, 23 * MS, 40 * MS, 40 * MS), 0.5, True),
        (tuple(k * MS for k in (1, 2, 3, 4, 5, 6, 7, 8)), 0.1, True),
    ],
)
def test_when_another_query_would_gain_nothing(delays_ns: tuple[int, ...], elapsed_s: float, settled: bool) -> None:
    assert answers(*delays_ns).settled(elapsed_s) is settled


def test_after_a_kiss_no_more_queries_but_what_was_heard_stays() -> None:
    heard = answers(MS)
    heard.take(KissOfDeath("kiss-o'-death RATE"))
    assert heard.settled(0.0)
    assert heard.best is not None


def test_four_refused_answers_end_it_but_strays_do_not() -> None:
    heard = answers()
    for _ in range(100):
        heard.take(Stray("somebody else"))
    assert not heard.settled(9.0)
    for _ in range(4):
        heard.take(Refused("stratum 16"))
    assert heard.settled(0.0)
    assert heard.refusals == ["somebody else", "stratum 16"]


def test_reasons_that_differ_in_a_number_are_one() -> None:
    heard = answers()
    for port in range(1, 4001):
        heard.take(Stray(f"an answer came from 192.0.2.1:{port} instead of 192.0.2.1:123", "from elsewhere"))
    heard.take(Stray("mode 3 is not a server's answer (4)", "mode"))
    assert heard.reasons.split("; ") == [
        "an answer came from 192.0.2.1:1 instead of 192.0.2.1:123 (and 3,999 like it)",
        "mode 3 is not a server's answer (4)",
    ]


def test_few_kinds_of_reasons_are_told_and_the_others_are_counted() -> None:
    heard = answers()
    for number in range(40):
        heard.refuse(f"{number} " + "x" * 10_000)
    assert heard.reasons.endswith("; and 34 for other reasons")
    assert len(heard.reasons) < 2_000


@given(st.lists(st.binary(max_size=100), max_size=200), st.text(max_size=300))
def test_whatever_comes_is_told_in_words_that_fit_a_screen(datagrams: list[bytes], said: str) -> None:
    """Some in answer to a query of ours: what is told of these is no stray."""
    heard = answers()
    for data in datagrams:
        try:
            parse(data, {data[24:32]} if data[:1] < b"\x80" else ())
        except Refused as refused:
            heard.take(refused)
    heard.refuse(said)
    assert len(heard.reasons) < 1500
    assert len(heard.refusals) <= 6
