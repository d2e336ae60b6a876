"""What two tickets come to, on both sides the same; and the format and the derivation by a second reader of both."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simopen.errors import Flaw, TicketError
from simopen.link.session import Role
from simopen.model.nat import Profile
from simopen.ticket.agreement import session
from simopen.ticket.codec import Ticket, parse_ticket
from simopen.ticket.hold import issued
from simopen.ticket.keys import PrivateKey
from tests.ticket.test_codec import SIMPLE

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tickets.json").read_text())
PRIVATE = bytes(range(0x51, 0x71))
NOW_S = 1_900_000_000


def own(private: bytes = PRIVATE, **other: Any) -> Ticket:
    key = PrivateKey.stored(private)
    return replace(SIMPLE, key=key.public(), private=key, **other)


# --- the format, read by what the vectors' users have: this docstring's words, and the standard library


def fields(text: str) -> dict[str, Any]:
    """Version, length, key; bits, instant, port, confidence, step, busy; endpoints; delta; mappings; digest."""
    data = base64.b32decode(text + "=" * (-len(text) % 8))
    assert data[0] == 2
    assert data[1] == len(data)
    assert hashlib.blake2s(data[:-4], digest_size=4).digest() == data[-4:]
    rest = iter(data[2:-4])
    key = bytes(next(rest) for _ in range(32)).hex()
    bits, instant, port, confidence = (unsigned(rest, size) for size in (2, 4, 2, 1))
    step = (unsigned(rest, 1) ^ 0x80) - 0x80
    busy = unsigned(rest, 1)
    count = unsigned(rest, 1)
    mapped = endpoint(rest, port) if count & 1 else None
    hosts = [endpoint(rest, port) for _ in range(count >> 1)]
    return {
        "key": key,
        "mapping": bits >> 11 & 7,
        "allocation": bits >> 8 & 7,
        "filtering": bits >> 6 & 3,
        "pooling": bits >> 4 & 3,
        "hairpinning": bits >> 2 & 3,
        "layers": bits & 3,
        "spray": bits >> 14 & 1,
        "one_row": bits >> 15,
        "instant": instant,
        "local_port": port,
        "confidence": confidence,
        "step": step,
        "busy": busy,
        "mapped": mapped,
        "hosts": hosts,
        "delta": signed(rest),
        "mappings": [[signed(rest), signed(rest)] for _ in range(unsigned(rest, 1))],
    }


def unsigned(rest: Iterator[int], size: int) -> int:
    return int.from_bytes(bytes(next(rest) for _ in range(size)))


def endpoint(rest: Iterator[int], usual_port: int) -> str:
    kind = next(rest)
    packed = bytes(next(rest) for _ in range(16 if kind & 2 else 4))
    port = unsigned(rest, 2) if kind & 1 else usual_port
    address = ipaddress.ip_address(packed)
    return f"[{address}]:{port}" if kind & 2 else f"{address}:{port}"


def signed(rest: Iterator[int]) -> int:
    """LEB128 of a zigzag number: 0, -1, 1, -2, 2 are 0, 1, 2, 3, 4."""
    number = shift = 0
    while True:
        digit = next(rest)
        number |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            return number >> 1 ^ -(number & 1)


def x25519(private: bytes, public: bytes) -> bytes:
    """RFC 7748 §5, written out."""
    prime = 2**255 - 19
    scalar = int.from_bytes(private, "little") & ~7 & ~(1 << 255) | 1 << 254
    at = int.from_bytes(public, "little") & ~(1 << 255)
    x2, z2, x3, z3 = 1, 0, at, 1
    for position in range(254, -1, -1):
        swapped = scalar >> position & 1
        if swapped:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        x3, z3 = (da + cb) ** 2 % prime, at * (da - cb) ** 2 % prime
        x2, z2 = aa * bb % prime, (aa - bb) * (aa + 121665 * (aa - bb)) % prime
        if swapped:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, prime - 2, prime) % prime).to_bytes(32, "little")


BASE = bytes([9, *[0] * 31])


@pytest.mark.parametrize("vector", VECTORS["tickets"], ids=lambda each: str(each["what"]))
def test_the_vectors_of_the_format(vector: dict[str, Any]) -> None:
    assert fields(vector["text"]).items() <= vector.items()
    read = parse_ticket(vector["text"])
    again = replace(read)  # without what came in
    assert again.encode() == vector["text"]
    assert read.key == x25519(bytes.fromhex(vector["private"]), BASE)
    assert (read.instant, read.local_port, read.spray) == (vector["instant"], vector["local_port"], vector["spray"])
    assert [str(each) for each in read.profile.hosts] == vector["hosts"]
    assert (None if read.profile.mapped is None else str(read.profile.mapped)) == vector["mapped"]
    assert len(read.profile.observations) == len(vector["mappings"])


@pytest.mark.parametrize("vector", VECTORS["meetings"], ids=lambda each: f"{each['mine']} and {each['theirs']}")
def test_the_vectors_of_what_two_tickets_come_to(vector: dict[str, Any]) -> None:
    mine, theirs = (VECTORS["tickets"][vector[side]] for side in ("mine", "theirs"))
    privates = [bytes.fromhex(each["private"]) for each in (mine, theirs)]
    publics = [bytes.fromhex(each["key"]) for each in (mine, theirs)]
    whole = [base64.b32decode(each["text"] + "=" * (-len(each["text"]) % 8)) for each in (mine, theirs)]

    shared = x25519(privates[0], publics[1])
    assert shared == x25519(privates[1], publics[0]) == bytes.fromhex(vector["shared"])
    extracted = hmac.digest(b"\0" * 32, shared, "sha256")
    key = hmac.digest(extracted, b"simopen ticket 2\0" + b"".join(sorted(publics)) + b"\x01", "sha256")
    assert key.hex() == vector["key"]
    said = b"".join(len(each).to_bytes(4, "big") + each for each in sorted(whole, reverse=True))
    assert hashlib.sha256(b"simopen link 1\0tickets\0" + said).hexdigest() == vector["context"]
    assert vector["role"] == ("initiator" if whole[0] > whole[1] else "responder")

    owned = [
        parse_ticket(each["text"]).owned(PrivateKey.stored(private))
        for each, private in zip((mine, theirs), privates, strict=True)
    ]
    ours, its = session(owned[0], owned[1]), session(owned[1], owned[0])
    assert (ours.key, ours.context) == (its.key, its.context) == (key, bytes.fromhex(vector["context"]))
    assert (ours.role, its.role) == (vector["role"], Role(vector["role"]).other)


def test_x25519_here_is_the_rfcs() -> None:
    """RFC 7748 §6.1."""
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert x25519(bob, BASE).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert PrivateKey.stored(bob).public() == x25519(bob, BASE)


# --- what two tickets come to


def test_both_sides_come_to_the_same_and_one_begins() -> None:
    mine, theirs = issued(SIMPLE.profile, NOW_S, 1314, ahead_ns=0), issued(SIMPLE.profile, NOW_S, 1315, ahead_ns=0)
    ours, its = session(mine, parse_ticket(theirs.encode())), session(theirs, parse_ticket(mine.encode()))
    assert (ours.key, ours.context) == (its.key, its.context)
    assert {ours.role, its.role} == set(Role)
    assert len(ours.key) == len(ours.context) == 32


def test_who_reads_the_chat_has_another_key() -> None:
    """With both tickets, and a private half of his own."""
    mine, theirs, other = own(), own(bytes(range(32))), own(bytes(32))
    forged = replace(theirs, key=mine.key, private=other.private)
    with pytest.raises(ValueError, match="is not that of the ticket's key"):
        session(forged, theirs)
    assert len({session(mine, theirs).key, session(mine, other).key, session(other, theirs).key}) == 3


@pytest.mark.parametrize(
    "changed", [{"instant": NOW_S + 1}, {"local_port": 7}, {"spray": True}, {"profile": Profile()}]
)
def test_a_ticket_that_is_altered_on_the_way_is_another_session(changed: dict[str, Any]) -> None:
    mine, theirs = own(), own(bytes(range(32)))
    assert session(mine, replace(theirs, **changed)).context != session(mine, theirs).context
    assert session(mine, replace(theirs, **changed)).key == session(mine, theirs).key


def test_each_ticket_has_a_key_of_its_own() -> None:
    keys = {issued(SIMPLE.profile, NOW_S, 1314, ahead_ns=0).key for _ in range(20)}
    assert len(keys) == 20


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")])
def test_a_key_that_gives_everybody_the_same_result_is_refused(key: bytes) -> None:
    """RFC 7748 §6.1: of small order."""
    with pytest.raises(TicketError, match="its key is none; ask your peer for a new one") as caught:
        session(own(), replace(SIMPLE, key=key))
    assert caught.value.flaw is Flaw.ALTERED


def test_ones_own_ticket_is_told_whatever_else_it_says() -> None:
    mine = own()
    for theirs in (mine, parse_ticket(mine.encode()), replace(mine, instant=NOW_S + 20)):
        with pytest.raises(TicketError) as caught:
            session(mine, theirs)
        assert caught.value.flaw is Flaw.OWN


def test_without_the_private_half_nothing_is_proven() -> None:
    mine = parse_ticket(own().encode())
    with pytest.raises(TicketError, match=r"without its private half: .* on that host, as that user, while") as caught:
        session(mine, SIMPLE)
    assert caught.value.flaw is Flaw.KEYLESS


def test_it_is_for_one_meeting() -> None:
    told: list[bool] = []
    key = PrivateKey.stored(PRIVATE, lambda: told.append(True))
    mine = replace(SIMPLE, key=key.public(), private=key)
    copies = [copy.copy(mine), copy.deepcopy(mine), replace(mine, instant=NOW_S)]
    session(mine, SIMPLE)
    session(mine, SIMPLE)  # until a stream is up, as often as it takes
    key.spend()
    key.spend()
    assert told == [True]
    for each in (mine, *copies):
        with pytest.raises(
            TicketError, match=r"used up: a ticket is good for one meeting; make a new one.* both sides"
        ):
            session(each, SIMPLE)
