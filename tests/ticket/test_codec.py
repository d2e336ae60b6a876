from __future__ import annotations

import base64
import pickle
import tracemalloc
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import Flaw, SimopenError, TicketError
from simopen.lab.nat import model as lab
from simopen.model.endpoint import Endpoint, canonical
from simopen.model.nat import Allocation, Filtering, Mapping, Observation, Pooling, Profile
from simopen.model.times import MonoNs
from simopen.nat.classify import classify
from simopen.nat.predict import predict
from simopen.ticket.agreement import FARTHEST_S, LATE_S, agreed_instant, both_spray
from simopen.ticket.codec import (
    MOST_HOSTS,
    MOST_MAPPINGS,
    Ticket,
    _digest,
    in_utc,
    looks_like_ticket,
    parse_ticket,
)
from tests.modelled import HOST, PUNCH_PORT, Model

NOW = 1_900_000_000
HOST6 = "2001:db8::7"
KEY = bytes(range(0x20, 0x40))
SIMPLE = Ticket(
    Profile(
        mapping=Mapping.ENDPOINT_INDEPENDENT,
        allocation=Allocation.PRESERVING,
        pooling=Pooling.PAIRED,
        mapped=Endpoint("203.0.113.7", PUNCH_PORT),
        hosts=(Endpoint(HOST, PUNCH_PORT), Endpoint("2001:db8::7", PUNCH_PORT)),
        confidence=0.995,
    ),
    NOW,
    PUNCH_PORT,
    KEY,
)
TEXT = SIMPLE.encode()
PEER = Endpoint("192.0.2.77", 5000)
OWN_BEYOND_ALL = Observation(PEER, PEER, PEER, MonoNs(0), own=2**62)  # counted one by one, where a NAT keeps the parity


def discovered(nat: lab.Nat, seed: int = 3) -> Ticket:
    """What a host behind such a NAT would print, its observations ending 20 s before the instant."""
    observations = Model([nat], seed, others_per_s=5).discover()
    profile = classify(observations, hosts=[Endpoint(HOST, PUNCH_PORT)])
    return Ticket(in_utc(profile, (NOW - 20) * 10**9 - observations[-1].at_ns), NOW, PUNCH_PORT, KEY)


def flaw_of(text: str) -> Flaw:
    with pytest.raises(TicketError) as caught:
        parse_ticket(text)
    return caught.value.flaw


def sealed(data: bytes) -> str:
    """With the digest that belongs to it: what nobody has altered on the way."""
    return base64.b32encode(data + _digest(data)).decode()


def test_it_comes_back_as_it_was() -> None:
    assert parse_ticket(TEXT) == SIMPLE


def test_it_is_short_and_one_word_that_no_chat_changes() -> None:
    assert len(SIMPLE.encode()) < 130
    assert len(replace(SIMPLE, profile=replace(SIMPLE.profile, hosts=SIMPLE.profile.hosts[:1])).encode()) <= 100
    assert set(TEXT) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


@pytest.mark.parametrize("mapping", [Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT])
@pytest.mark.parametrize("allocation", lab.ALLOCATIONS)
@pytest.mark.parametrize("parity", [False, True])
def test_the_peer_foresees_the_same_ports(mapping: Mapping, allocation: Allocation, parity: bool) -> None:
    ticket = discovered(lab.Nat(mapping=mapping, allocation=allocation, step=2, others=0.1, parity=parity))
    text = ticket.encode()
    assert len(text) < 170
    peers = parse_ticket(text)
    ours = {each.endpoint: each.probability for each in predict(ticket.profile, MonoNs(NOW * 10**9), 16, remote=PEER)}
    theirs = {each.endpoint: each.probability for each in predict(peers.profile, MonoNs(NOW * 10**9), remote=PEER)}
    # Times are told to 0.1 ms, and the confidence to half a per cent.
    assert all(theirs[end] == pytest.approx(ours[end], rel=0.05) for end in ours)
    assert bool(ours) is (allocation is not Allocation.RANDOM)
    assert (peers.profile.mapping, peers.profile.allocation) == (ticket.profile.mapping, ticket.profile.allocation)
    assert peers.profile.step == ticket.profile.step


@pytest.mark.parametrize(("step", "parity"), [(1, False), (2, False), (3, False), (1, True), (2, True)])
def test_the_peer_foresees_the_same_ports_though_it_knows_nothing_of_our_other_flows(step: int, parity: bool) -> None:
    mapping, allocation = Mapping.ADDRESS_AND_PORT_DEPENDENT, Allocation.SEQUENTIAL
    for seed in range(5):
        model = Model([lab.Nat(mapping, allocation=allocation, step=step, parity=parity, one_row=True)], seed)
        seen = model.discover(dead=3)
        profile = classify(seen, hosts=[Endpoint(HOST, PUNCH_PORT)], flows=model.flows)
        ticket = Ticket(in_utc(profile, (NOW - 20) * 10**9 - seen[-1].at_ns), NOW, PUNCH_PORT, KEY)
        peers = parse_ticket(ticket.encode()).profile
        assert peers.one_row is True or (parity and peers.one_row is None)  # a step of 1 that skips looks like others
        assert (peers.step, peers.busy) == (step, 0.0)
        ours, theirs = (predict(each, MonoNs(NOW * 10**9), remote=PEER)[0] for each in (ticket.profile, peers))
        assert theirs.endpoint == ours.endpoint == model.mapped(Endpoint(HOST, PUNCH_PORT), PEER)


@pytest.mark.parametrize("one_row", [None, False, True])
def test_whether_there_is_one_row_is_told_by_a_bit(one_row: bool | None) -> None:
    ticket = replace(SIMPLE, profile=replace(SIMPLE.profile, one_row=one_row))
    assert parse_ticket(ticket.encode()).profile.one_row is (one_row or None)
    plain, told = (base64.b32decode(text + "=" * (-len(text) % 8)) for text in (TEXT, ticket.encode()))
    assert told[34] == plain[34] | 0x80 * bool(one_row)
    assert (told[:34], told[35:-4]) == (plain[:34], plain[35:-4])


@pytest.mark.parametrize(
    "text",
    [
        TEXT.lower(),
        f"  {TEXT}\n",
        f'"{TEXT}"',
        f"`{TEXT}`",
        f"“{TEXT}”",
        f"<{TEXT}>",
        f"**{TEXT}**",
        "\n> ".join([TEXT[:30], TEXT[30:]]),
        "\r\n".join(TEXT[at : at + 20] for at in range(0, len(TEXT), 20)),
        "\u200b".join([TEXT[:9], TEXT[9:]]),
        f"{TEXT}.",
        f"{TEXT}, ",
        f"({TEXT});",
        f" - {TEXT} !?",
        f"\u200e{TEXT}\u200f…",
        f"\u2068{TEXT}\u2069。",
        f"_{TEXT}_:",
        f"| {TEXT} |",
    ],
)
def test_what_a_chat_puts_around_it_is_ignored(text: str) -> None:
    assert parse_ticket(text) == SIMPLE


@pytest.mark.parametrize("text", ["", "A", "hello, world!", "ticket: none", "203.0.113.7:1314", "ÄÖÜÄÖÜ", "\x00" * 99])
def test_what_is_no_ticket(text: str) -> None:
    assert flaw_of(text) is Flaw.NO_TICKET


@pytest.mark.parametrize("length", range(4, len(TEXT)))
def test_every_cut_is_told(length: int) -> None:
    assert flaw_of(TEXT[:length]) is Flaw.CUT_SHORT


def test_every_change_of_a_character_is_told() -> None:
    # The last character's lowest bits may be padding (RFC 4648 §6); the first holds the version, the third the length.
    for at in range(4, len(TEXT) - 1):
        other = "B" if TEXT[at] == "A" else "A"
        assert flaw_of(TEXT[:at] + other + TEXT[at + 1 :]) is Flaw.ALTERED
    for at in range(4):
        other = "B" if TEXT[at] == "A" else "A"
        assert flaw_of(TEXT[:at] + other + TEXT[at + 1 :]) in {Flaw.ALTERED, Flaw.CUT_SHORT}


@pytest.mark.parametrize("text", [TEXT + TEXT, TEXT + "ABCDEFGH", TEXT[:10] + TEXT[18:] + TEXT[10:18]])
def test_too_much_and_out_of_order_is_altered(text: str) -> None:
    assert flaw_of(text) is Flaw.ALTERED


def test_consent_to_a_spray_is_one_bit() -> None:
    texts = (SIMPLE.encode(), replace(SIMPLE, spray=True).encode())
    plain, consenting = (base64.b32decode(text + "=" * (-len(text) % 8)) for text in texts)
    assert consenting[34] == plain[34] | 0x40
    assert consenting[35:-4] == plain[35:-4]
    assert consenting[:34] == plain[:34]


@pytest.mark.parametrize(("mine", "theirs"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_spray_takes_both_owners_and_both_come_to_the_same(mine: bool, theirs: bool) -> None:
    one, other = replace(SIMPLE, spray=mine), replace(SIMPLE, spray=theirs, key=bytes(32))
    assert both_spray(one, other) == both_spray(other, one) == (mine and theirs)


OF_VERSION_1 = "AEPARQDRH6ZQABJCY4AP6AYAZMAHCBYAYCUACAQAABKKI42Y"


@pytest.mark.parametrize(("text", "version"), [(OF_VERSION_1, 1), (sealed(bytes([3, 19]) + b"of the future"), 3)])
def test_another_version_is_told_and_what_to_do(text: str, version: int) -> None:
    words = rf"version {version}, and this simopen reads 2; install the same .* make a new one: simopen nat --ticket"
    with pytest.raises(TicketError, match=words) as caught:
        parse_ticket(text)
    assert caught.value.flaw is Flaw.OTHER_VERSION
    assert looks_like_ticket(text)


@pytest.mark.parametrize("length", range(4, len(OF_VERSION_1)))
def test_every_cut_of_an_older_ticket_is_told(length: int) -> None:
    assert flaw_of(OF_VERSION_1[:length]) is Flaw.CUT_SHORT


def test_what_comes_in_goes_out_byte_for_byte() -> None:
    """Both ends hash both tickets: what one understands differently must not come to another hash."""
    body = bytearray(base64.b32decode(TEXT + "=" * (-len(TEXT) % 8))[:-4])
    body[2 + 32 + 8] = 255  # a confidence above 100 %, which nobody writes
    text = sealed(bytes(body)).rstrip("=")
    read = parse_ticket(f" {text.lower()}. ")
    assert read.profile.confidence == 1
    assert read.encode() == pickle.loads(pickle.dumps(read)).encode() == text
    later = replace(read, instant=NOW + 1)
    assert parse_ticket(later.encode()) == later


def test_the_longest_one_leaves_out_the_earliest_mappings() -> None:
    """Its second byte is its length."""
    mapped = [Endpoint("2001:db8:1::7", 40_000 - 300 * number) for number in range(MOST_MAPPINGS)]
    seen = tuple(
        Observation(Endpoint(HOST6, PUNCH_PORT), Endpoint("2001:db8:2::1", 9 + number), each, MonoNs(number * 10**9))
        for number, each in enumerate(mapped)
    )
    hosts = tuple(Endpoint(f"2001:db8::{number}", number) for number in range(1, MOST_HOSTS + 1))
    apdm, sequential = Mapping.ADDRESS_AND_PORT_DEPENDENT, Allocation.SEQUENTIAL
    profile = Profile(apdm, sequential, mapped=mapped[-1], hosts=hosts, step=-100, busy=0.5, observations=seen)
    ticket = Ticket(in_utc(profile, (NOW - 3600) * 10**9), NOW, PUNCH_PORT, KEY)
    read = parse_ticket(ticket.encode())
    assert 4 < len(read.profile.observations) < MOST_MAPPINGS
    assert [each.mapped for each in read.profile.observations] == mapped[-len(read.profile.observations) :]
    assert read.profile.hosts == hosts
    assert len(ticket.encode()) <= 408


@pytest.mark.parametrize("key", [b"", KEY[:-1], KEY + b"\0", KEY.hex(), None, 7, bytearray(KEY)])
def test_a_key_that_is_none_is_a_bad_argument(key: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^a ticket's key is 32 bytes, not .{,80}$"):
        replace(SIMPLE, key=key).encode()


@pytest.mark.parametrize("instant", [-1, 2**32, 10**20, 10**400, float("inf"), float("nan")])
def test_an_instant_that_no_ticket_can_hold_is_a_bad_argument(instant: Any) -> None:
    other = replace(SIMPLE, instant=instant, key=bytes(32))
    for mine, theirs in ((SIMPLE, other), (other, SIMPLE)):
        with pytest.raises(ValueError, match=r"^a ticket's instant is UTC seconds, .{,200}$"):
            agreed_instant(mine, theirs, NOW)


def test_an_address_has_one_spelling_in_a_ticket() -> None:
    mapped = replace(SIMPLE.profile, mapped=Endpoint("::ffff:203.0.113.7", PUNCH_PORT))
    assert replace(SIMPLE, profile=mapped).encode() == TEXT


def test_both_sides_agree_on_the_later_instant() -> None:
    later = replace(SIMPLE, instant=NOW + 40, key=bytes(32))
    assert agreed_instant(SIMPLE, later, NOW) == agreed_instant(later, SIMPLE, NOW) == NOW + 40


def test_they_expire_with_the_window_after_it() -> None:
    later = replace(SIMPLE, instant=NOW + 40, key=bytes(32))
    assert agreed_instant(SIMPLE, later, NOW + 40 + LATE_S) == NOW + 40
    with pytest.raises(TicketError, match="its instant was 1 h ago; make new ones on both sides") as caught:
        agreed_instant(SIMPLE, later, NOW + 3640)
    assert caught.value.flaw is Flaw.EXPIRED


def test_they_may_name_an_instant_in_a_year_and_none_beyond() -> None:
    far = replace(SIMPLE, instant=NOW + FARTHEST_S, key=bytes(32))
    assert agreed_instant(SIMPLE, far, NOW) == NOW + FARTHEST_S
    with pytest.raises(TicketError, match="its instant is in the year") as caught:
        agreed_instant(SIMPLE, far, NOW - 1)
    assert caught.value.flaw is Flaw.FAR_AHEAD


def test_nobody_meets_with_its_own_ticket() -> None:
    with pytest.raises(TicketError, match="own: give the one that your peer") as caught:
        agreed_instant(SIMPLE, parse_ticket(TEXT), NOW)
    assert caught.value.flaw is Flaw.OWN
    with pytest.raises(TicketError, match="own"):  # an earlier one, with the same key
        agreed_instant(SIMPLE, replace(SIMPLE, instant=NOW - 10), NOW)


@pytest.mark.parametrize(
    "text",
    [TEXT, TEXT.lower(), f"`{TEXT}`", f"{TEXT}.", f" {TEXT},", TEXT[:24], TEXT + TEXT, TEXT[:20] + "0" + TEXT[21:]],
)
def test_a_ticket_is_known_by_its_looks_intact_or_not(text: str) -> None:
    assert looks_like_ticket(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "203.0.113.7",
        "2001:db8::7",
        "fe80::1%eth0",
        "relay.a-very-long-name.example.org",
        "a-computer-in-my-kitchen",
    ],
)
def test_a_host_is_no_ticket(text: str) -> None:
    assert not looks_like_ticket(text)


def test_the_error_is_a_value_error_and_ours() -> None:
    assert issubclass(TicketError, ValueError)
    assert issubclass(TicketError, SimopenError)


def test_what_a_peer_cannot_use_is_left_out() -> None:
    scoped = Endpoint("fe80::1%2", PUNCH_PORT)
    many = tuple(Endpoint(f"10.0.0.{number}", 1000 + number) for number in range(1, 20))
    ticket = replace(SIMPLE, profile=replace(SIMPLE.profile, hosts=(scoped, *many)))
    assert parse_ticket(ticket.encode()).profile.hosts == many[:MOST_HOSTS]


@pytest.mark.parametrize(
    ("ticket", "message"),
    [
        (replace(SIMPLE, instant=-1), "instant"),
        (replace(SIMPLE, instant=2**32), "instant"),
        (replace(SIMPLE, local_port=0), "local port"),
        (replace(SIMPLE, local_port=65536), "local port"),
        (replace(SIMPLE, profile=replace(SIMPLE.profile, hosts=(Endpoint(HOST, 0),))), "profile's port"),
        (replace(SIMPLE, profile=replace(SIMPLE.profile, mapped=Endpoint(HOST, 70_000))), "profile's port"),
        (replace(SIMPLE, profile=replace(SIMPLE.profile, mapped=Endpoint("9" * 5_000, 7))), "^.{,200}$"),
        (replace(SIMPLE, profile=replace(SIMPLE.profile, step=70_000)), "no room"),
        (replace(SIMPLE, profile=replace(SIMPLE.profile, confidence=10**400)), "confidence lies between 0 and 1"),
        (
            replace(SIMPLE, profile=replace(SIMPLE.profile, observations=(OWN_BEYOND_ALL,))),
            "own ports must be 0 to 65535",
        ),
    ],
)
def test_what_no_ticket_can_say_is_refused(ticket: Ticket, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ticket.encode()


ports = st.integers(1, 65535)
ends = st.builds(
    Endpoint,
    (st.ip_addresses(v=4) | st.ip_addresses(v=6)).map(str).filter(lambda text: "%" not in text).map(canonical),
    ports,
)
profiles = st.builds(
    Profile,
    mapping=st.sampled_from(Mapping),
    allocation=st.sampled_from(Allocation),
    filtering=st.sampled_from(Filtering),
    pooling=st.sampled_from(Pooling),
    hairpinning=st.sampled_from([None, False, True]),
    layers=st.sampled_from([None, 0, 1, 2]),
    mapped=st.none() | ends,
    hosts=st.lists(ends, max_size=MOST_HOSTS).map(tuple),
    step=st.none() | st.sampled_from([-4, -1, 1, 2, 127]),
    busy=st.none() | st.integers(0, 200).map(lambda share: share / 200),
    delta=st.none() | st.integers(1, 65535) | st.integers(-65535, -1),
    confidence=st.integers(0, 200).map(lambda share: share / 200),
)


@given(
    st.builds(Ticket, profiles, st.integers(0, 2**32 - 1), ports, st.binary(min_size=32, max_size=32), st.booleans())
)
def test_whatever_it_says_comes_back(ticket: Ticket) -> None:
    assert parse_ticket(ticket.encode()) == ticket


@given(st.text())
def test_any_text_raises_only_the_ticket_error(text: str) -> None:
    with pytest.raises(TicketError):
        parse_ticket(text)


@given(st.binary(max_size=249))
def test_any_body_that_is_sealed_gives_a_ticket_or_the_ticket_error(body: bytes) -> None:
    try:
        ticket = parse_ticket(sealed(bytes([2, len(body) + 6]) + body))
    except TicketError:
        return
    predict(ticket.profile, MonoNs(0))
    assert ticket.encode() == sealed(bytes([2, len(body) + 6]) + body).rstrip("=")
    assert parse_ticket(replace(ticket, instant=0).encode()).profile.mapped == ticket.profile.mapped


def test_more_than_a_ticket_ever_says_is_altered() -> None:
    """What it would take seconds to plan with, or overflow a float."""
    header = base64.b32decode(TEXT + "=" * (-len(TEXT) % 8))[2:45]
    host, nothing = b"\0\x0a\0\0\1", b"\0"
    for rest in (
        bytes([MOST_HOSTS + 1 << 1]) + (MOST_HOSTS + 1) * host + nothing + nothing,
        b"\1" + host + nothing + bytes([MOST_MAPPINGS + 1]) + (MOST_MAPPINGS + 1) * b"\4\0",
        b"\1" + host + 150 * b"\xff" + b"\1" + nothing,
    ):
        assert flaw_of(sealed(bytes([2, len(header + rest) + 6]) + header + rest)) is Flaw.ALTERED


def test_100_000_random_and_mutated_texts_raise_only_the_ticket_error() -> None:
    draws = Random(1)
    letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ2345670189-_=+ \n"é'
    seeds = [TEXT, discovered(lab.Nat(mapping=Mapping.ADDRESS_DEPENDENT)).encode()]
    told = 0
    for number in range(100_000):
        text = mutated(draws, seeds[number % 2], letters) if number % 3 else "".join(draws.choices(letters, k=50))
        try:
            parse_ticket(text)
        except TicketError:
            told += 1
    assert told > 90_000  # the rest are mutations that mean nothing: a space, a line break, nothing at all


@pytest.mark.parametrize(
    "text", [TEXT * 100_000, "A" * 10_000_000, "\u200b" * 10_000_000, " " * 10_000_000, "é" * 10**6]
)
def test_a_text_of_any_length_costs_no_more_memory_than_a_ticket(text: str) -> None:
    """Its own is the caller's; what is looked at is copied."""
    tracemalloc.start()
    try:
        assert flaw_of(text) in {Flaw.NO_TICKET, Flaw.ALTERED}
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def mutated(draws: Random, text: str, letters: str) -> str:
    at = draws.randrange(len(text))
    kept = draws.choice([0, 1, 1, draws.randrange(20)])
    return text[:at] + draws.choice(letters) * draws.randrange(3) + text[at + kept :]


@pytest.mark.parametrize("text", [5, b"simopen", None, 10**400, float("nan")])
def test_what_is_no_text_is_no_ticket(text: Any) -> None:
    with pytest.raises(TypeError, match="a ticket is read from a string"):
        parse_ticket(text)
