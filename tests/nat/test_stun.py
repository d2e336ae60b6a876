"""What is believed of a STUN answer, and that nothing but StunError ever comes of one that is not."""

from __future__ import annotations

import contextlib
import random
import struct

import aioice.stun
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import StunError
from simopen.model.endpoint import Endpoint
from simopen.nat import stun
from simopen.nat.stun_answer import (
    COOKIE,
    ERROR,
    MAPPED,
    OTHER,
    SOFTWARE,
    SUCCESS,
    XOR_MAPPED,
    address,
    attribute,
    message,
    success,
)
from tests.fake_stun import error

T = bytes(range(12))
SERVER, SERVER6 = Endpoint("203.0.113.1", 3478), Endpoint("2001:db8::1", 3478)
SEEN, SEEN6 = Endpoint("198.51.100.7", 40_000), Endpoint("2001:db8:7::7", 40_000)
ELSEWHERE = Endpoint("203.0.113.2", 3479)
FAMILIES = {"IPv4": (SERVER, SEEN), "IPv6": (SERVER6, SEEN6)}

XORED, PLAIN = attribute(XOR_MAPPED, address(SEEN, T)), attribute(MAPPED, address(SEEN))
OTHER_END = attribute(OTHER, address(ELSEWHERE))


def believed(data: bytes, server: Endpoint = SERVER) -> stun.Answer:
    return stun.parse(data, T, server)


def test_the_request_is_one_that_another_codec_reads() -> None:
    read = aioice.stun.parse_message(stun.request(T))
    assert (read.message_method, read.message_class) == (aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
    assert (read.transaction_id, read.attributes) == (T, {})


@pytest.mark.parametrize(("server", "seen"), FAMILIES.values(), ids=FAMILIES)
def test_a_good_answer_names_the_mapping(server: Endpoint, seen: Endpoint) -> None:
    assert believed(success(stun.request(T), seen), server) == stun.Answer(seen, None)


def test_rfc_5769_sample_answers() -> None:
    """Sections 2.2 and 2.3, without their MESSAGE-INTEGRITY and FINGERPRINT, whose length they cover."""
    transaction = bytes.fromhex("b7e7a701bc34d686fa87dfae")
    software = attribute(SOFTWARE, b"test vector")
    four = attribute(XOR_MAPPED, bytes.fromhex("0001a147e112a643"))
    six = attribute(XOR_MAPPED, bytes.fromhex("0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"))
    seen = stun.parse(message(SUCCESS, transaction, software, four), transaction, SERVER).mapped
    assert seen == Endpoint("192.0.2.1", 32_853)
    seen = stun.parse(message(SUCCESS, transaction, software, six), transaction, SERVER6).mapped
    assert seen == Endpoint("2001:db8:1234:5678:11:2233:4455:6677", 32_853)


def test_the_xored_address_counts_since_a_nat_may_rewrite_the_other() -> None:
    rewritten = attribute(MAPPED, address(Endpoint("192.168.1.2", 5)))
    assert believed(message(SUCCESS, T, rewritten, XORED)).mapped == SEEN


def test_the_plain_address_will_do_where_the_other_is_missing() -> None:
    assert believed(message(SUCCESS, T, PLAIN)).mapped == SEEN


@pytest.mark.parametrize("named", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "0.1.2.3"])
def test_a_server_names_nothing_nearer_than_itself(named: str) -> None:
    near = Endpoint(named, 80)
    with pytest.raises(StunError, match="its answer names"):
        believed(message(SUCCESS, T, attribute(MAPPED, address(near))))
    assert believed(message(SUCCESS, T, XORED, attribute(OTHER, address(near)))).other is None


def test_ipv4_in_the_form_of_ipv6_is_ipv4() -> None:
    """So some servers answer that take both families on one socket."""
    told = attribute(MAPPED, address(Endpoint(f"::ffff:{SEEN.address}", SEEN.port)))
    assert believed(message(SUCCESS, T, told)).mapped == SEEN


def test_the_other_address_is_told() -> None:
    assert believed(message(SUCCESS, T, XORED, OTHER_END)).other == ELSEWHERE


@pytest.mark.parametrize("other", [SEEN6, Endpoint("0.0.0.0", 1), Endpoint("224.0.0.1", 1), Endpoint("203.0.113.2", 0)])
def test_an_other_address_that_cannot_be_asked_is_none(other: Endpoint) -> None:
    assert believed(message(SUCCESS, T, XORED, attribute(OTHER, address(other)))).other is None


def test_optional_attributes_that_nobody_knows_are_passed_over() -> None:
    assert believed(message(SUCCESS, T, attribute(0xC123, b"hello"), XORED)).mapped == SEEN


RIGHT = success(stun.request(T), SEEN)
REFUSED = {
    "no bytes": (b"", "cut short"),
    "a header only announced": (RIGHT[:12], "cut short"),
    "a body cut short": (RIGHT[:-1], "cut short"),
    "more than a message": (RIGHT + b"x", "more bytes"),
    "another transaction": (message(SUCCESS, bytes(12), XORED), "another transaction"),
    "no magic cookie": (message(SUCCESS, T, XORED, cookie=COOKIE ^ 1), "magic cookie"),
    "an endless body": (struct.pack("!HHI", SUCCESS, 0xFFFC, COOKIE) + T, "65532 bytes"),
    "a crooked body": (struct.pack("!HHI", SUCCESS, 6, COOKIE) + T + bytes(6), "6 bytes"),
    "a captive portal": (b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", "captive portal"),
    "a TLS alert": (b"\x15\x03\x03\x00\x02\x02\x46" + bytes(20), "magic cookie"),
    "an SSH server": (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak STUN"),
    "our own request": (stun.request(T), "0x0001"),
    "an indication": (message(0x0011, T, XORED), "0x0011"),
    "an answer to another method": (message(0x0103, T, XORED), "0x0103"),
    "no mapping": (message(SUCCESS, T), "no mapped address"),
    "another family": (success(stun.request(T), SEEN6), "another family"),
    "port 0": (success(stun.request(T), Endpoint("198.51.100.7", 0)), "nobody's"),
    "no host": (success(stun.request(T), Endpoint("0.0.0.0", 9)), "nobody's"),
    "many hosts": (success(stun.request(T), Endpoint("224.0.0.1", 9)), "nobody's"),
    "every host": (success(stun.request(T), Endpoint("255.255.255.255", 9)), "nobody's"),
    "an error": (error(stun.request(T), 420, "Unknown Attribute"), "error 420 Unknown Attribute"),
    "an error that draws": (error(stun.request(T), 500, "\x1b[2Jboo"), r"error 500 \[2Jboo"),
    "an error without a code": (message(ERROR, T), "did not say why"),
    "another server instead": (error(stun.request(T), 300, "Try Alternate"), "error 300"),
    "an unknown attribute": (message(SUCCESS, T, XORED, attribute(0x7123, b"")), "must be understood, 0x7123"),
    "two mappings": (message(SUCCESS, T, XORED, XORED), "two attributes"),
    "an attribute past the end": (message(SUCCESS, T, XORED, struct.pack("!HH", SOFTWARE, 9)), "runs over"),
    "a mapping of three bytes": (message(SUCCESS, T, attribute(XOR_MAPPED, b"\0\1\2")), "cannot be read"),
    "a mapping of no family": (message(SUCCESS, T, attribute(XOR_MAPPED, b"\0\x07" + bytes(6))), "cannot be read"),
    "software in another alphabet": (message(SUCCESS, T, XORED, attribute(SOFTWARE, b"\xff\xfe")), "cannot be read"),
    "a wrong fingerprint": (message(SUCCESS, T, XORED, attribute(0x8028, bytes(4))), "fingerprint"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_answer_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(StunError, match=reason):
        believed(data)


@pytest.mark.parametrize("start", [b"HTTP", b"SSH-", b"\x01\x01\x00\x0c\x21\x12\xa4\x43"])
def test_what_cannot_become_an_answer_is_refused_at_once(start: bytes) -> None:
    """The server that says it may never say more."""
    with pytest.raises(StunError):
        stun.missing(start)


@given(st.integers(1, 70))
def test_bytes_that_come_in_any_pieces_make_the_same_message(size: int) -> None:
    data = b""
    while count := stun.missing(data):
        data += RIGHT[len(data) : len(data) + min(count, size)]
    assert data == RIGHT


@given(st.binary(max_size=200), st.binary(max_size=12))
def test_any_bytes_are_an_answer_or_a_stun_error(body: bytes, tail: bytes) -> None:
    length = len(body) + -len(body) % 4
    whole = struct.pack("!HHI", SUCCESS, length, COOKIE) + T + body.ljust(length, b"\0")
    for data in (body, whole, whole + tail, whole[: -len(tail) or None]):
        with contextlib.suppress(StunError):
            assert believed(data).mapped.port


SEEDS = (
    RIGHT,
    success(stun.request(T), SEEN, ELSEWHERE),
    message(SUCCESS, T, PLAIN, XORED, OTHER_END),
    error(stun.request(T), 400, "Bad"),
)


def test_a_hundred_thousand_altered_answers_raise_nothing_else() -> None:
    chance = random.Random(8489)
    believed_in = 0
    said = set()
    for _ in range(100_000):
        data = altered(bytearray(chance.choice(SEEDS)), chance)
        try:
            answer = believed(data)
        except StunError as refused:
            said.add(str(refused))
            continue
        believed_in += 1
        assert answer.mapped.family == SERVER.family
    assert 1_000 < believed_in < 99_000  # the alterations reach both sides of the line
    assert all(map(str.isprintable, said))  # it may end up on a terminal
    assert max(map(len, said)) < 200


def altered(data: bytearray, chance: random.Random) -> bytes:
    """One to three bytes changed, mostly behind the header; sometimes cut, sometimes all random behind the header."""
    if chance.random() < 0.2:
        data[20:] = chance.randbytes(len(data) - 20)
    for _ in range(chance.randint(1, 3)):
        data[chance.randrange(0 if chance.random() < 0.1 else 20, len(data))] = chance.choice(
            (0, 1, 2, 8, 0x20, 0x80, 255)
        )
    if chance.random() < 0.1:
        del data[chance.randrange(len(data)) :]
    return bytes(data)


PRIVATE, LOOPBACK, LINK = "192.168.1.9", "127.0.0.9", "169.254.0.9"


def test_the_second_round_asks_the_other_port_the_other_address_and_both() -> None:
    asked = stun.second_round(SERVER, ELSEWHERE)
    assert asked == (Endpoint(SERVER.address, 3479), Endpoint(ELSEWHERE.address, 3478), ELSEWHERE)


def test_of_a_server_that_names_its_own_address_only_the_other_port_is_left() -> None:
    assert stun.second_round(SERVER, Endpoint(SERVER.address, 3479)) == (Endpoint(SERVER.address, 3479),)
    assert stun.second_round(SERVER, SERVER) == ()


@pytest.mark.parametrize(
    ("server", "other", "asks"),
    [
        ("9.9.9.9", PRIVATE, False),
        ("9.9.9.9", LOOPBACK, False),
        ("9.9.9.9", "8.8.8.8", True),
        (PRIVATE, LINK, False),
        (PRIVATE, "192.168.1.10", True),
        (PRIVATE, "9.9.9.9", True),
        (LOOPBACK, "127.0.0.2", True),
    ],
)
def test_a_server_sends_us_no_further_in_than_it_is_itself(server: str, other: str, *, asks: bool) -> None:
    assert bool(stun.second_round(Endpoint(server, 3478), Endpoint(other, 3479))) == asks
