"""What others send, altered: it is believed or refused, and never raises anything else."""

from __future__ import annotations

import base64
import contextlib
import struct
from random import Random

from simopen.clock import ntp
from simopen.errors import LinkBroken, StunError, TicketError
from simopen.lab.nat import model as lab
from simopen.link.frames import END_FRAME, Decoder, data_frames
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Mapping, Pooling, Profile
from simopen.model.times import MonoNs
from simopen.nat import stun
from simopen.nat.classify import classify
from simopen.nat.predict import predict
from simopen.nat.stun_answer import COOKIE, SUCCESS, success
from simopen.ticket.agreement import session
from simopen.ticket.codec import Ticket, _digest, in_utc, parse_ticket
from simopen.ticket.hold import issued
from tests.fake_ntp import MISBEHAVIOURS, packet
from tests.fake_stun import error
from tests.modelled import HOST, PUNCH_PORT, Model

MOST_WORDS = 2000
"""Characters of any error message."""
_NOW_S = 1_900_000_000
_COOKIE = b"\x01cookie!"
_T = bytes(range(12))
_KEY = bytes(range(32))
_SERVER = Endpoint("203.0.113.1", 3478)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ2345670189-_=+. ,;\n\t\"'é\0\u202e\u200b\uff11"


def _tickets() -> tuple[str, ...]:
    profile = Profile(
        mapping=Mapping.ENDPOINT_INDEPENDENT,
        allocation=Allocation.PRESERVING,
        pooling=Pooling.PAIRED,
        mapped=Endpoint("203.0.113.7", PUNCH_PORT),
        hosts=(Endpoint(HOST, PUNCH_PORT), Endpoint("2001:db8::7", PUNCH_PORT)),
    )
    found = [Ticket(profile, _NOW_S, PUNCH_PORT, _KEY), Ticket(Profile(), _NOW_S, 1, _KEY)]
    for allocation in lab.ALLOCATIONS:
        nat = lab.Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=allocation)
        seen = Model([nat], 3, others_per_s=5).discover()
        told = classify(seen, hosts=[Endpoint(HOST, PUNCH_PORT)])
        found.append(Ticket(in_utc(told, _NOW_S * 10**9 - seen[-1].at_ns), _NOW_S, PUNCH_PORT, _KEY))
    return tuple(ticket.encode() for ticket in found)


def altered(data: bytes, chance: Random) -> bytes:
    """Some bytes changed, a piece put in, taken out or doubled, or cut."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0:
                del changed[at:]
            case 1:
                changed[at:at] = chance.randbytes(chance.randint(1, 40))
            case 2:
                del changed[at : at + chance.randint(1, 8)]
            case 3:
                changed[at:at] = changed[at : at + chance.randint(1, 20)]
            case _:
                changed[at : at + 1] = bytes(
                    [chance.choice((0, 1, 2, 8, 0x20, 0x7F, 0x80, 255, chance.randrange(256)))]
                )
    return bytes(changed)


_TICKETS: list[str] = []
_OWN: list[Ticket] = []


def ticket(chance: Random) -> None:
    """A ticket's text altered, or its body altered and sealed anew, so that it is read to the end and used."""
    if not _TICKETS:
        _TICKETS.extend(_tickets())
        _OWN.append(issued(Profile(), _NOW_S, 1, ahead_ns=0))
    text = chance.choice(_TICKETS)
    if chance.random() < 0.5:
        letters = list(text)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(letters) + 1)
            letters[at : at + chance.randrange(2)] = chance.choice(_LETTERS) * chance.choice((0, 1, 1, 1, 40))
        text = "".join(letters)
    else:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
        body = altered(raw[2:-4], chance)[:249]
        whole = bytes([raw[0], len(body) + 6]) + body
        text = base64.b32encode(whole + _digest(whole)).decode()
    try:
        read = parse_ticket(text)
    except TicketError as refused:
        _check_short(refused)
        return
    predict(read.profile, MonoNs(_NOW_S * 10**9))
    assert parse_ticket(read.encode()) == read
    assert len(read.encode()) <= 408
    with contextlib.suppress(TicketError):  # a key of small order
        assert len(session(_OWN[0], read).key) == 32


_ANSWERS = (
    success(stun.request(_T), Endpoint("198.51.100.7", 40_000)),
    success(stun.request(_T), Endpoint("198.51.100.7", 40_000), Endpoint("203.0.113.2", 3479)),
    error(stun.request(_T), 400, "Bad"),
    error(stun.request(_T), 300, "x" * 700),
)


def stun_message(chance: Random) -> None:
    """An answer altered; half of the time with a header that fits, so that its attributes are read."""
    data = altered(chance.choice(_ANSWERS), chance)
    if chance.random() < 0.5:
        body = data[20:]
        body += bytes(-len(body) % 4)
        data = struct.pack("!HHI", SUCCESS, len(body) % 2**16, COOKIE) + _T + body
    while (missing := stun_missing(data)) and chance.random() < 0.8:
        data += chance.randbytes(missing)
    with contextlib.suppress(StunError):
        answer = stun.parse(data, _T, _SERVER)
        assert 0 < answer.mapped.port < 65536
        assert answer.mapped.family == _SERVER.family


def stun_missing(data: bytes) -> int:
    """How many bytes a stream still has to bring; 0 where it can be nothing."""
    with contextlib.suppress(StunError):
        return min(stun.missing(data), 4096)
    return 0


def ntp_message(chance: Random) -> None:
    """A good or a misbehaving server's answer altered, and what two of them would make of the clock."""
    wrong = chance.choice([{}, {}, *(fields for fields, _ in MISBEHAVIOURS.values())])
    data = packet(**({"origin": _COOKIE} | wrong))
    if chance.random() < 0.7:  # one that is still ours
        data = (data[:24] + _COOKIE + data[32:]) if chance.random() < 0.5 else data
        changed = bytearray(data)
        for _ in range(chance.randint(1, 5)):
            changed[chance.choice([*range(24), *range(32, 48)])] = chance.choice((0, 1, 0x7F, 0x80, 255))
        data = bytes(changed)
    else:
        data = altered(data, chance)
    try:
        answer = ntp.parse(data, {_COOKIE})
    except ntp.Refused as refused:
        _check_short(refused)
        return
    assert answer.t2_ns <= answer.t3_ns
    assert 0 < answer.stratum < 16
    assert 0 <= answer.root_distance_ns <= ntp.MAX_DISTANCE_S * 1e9


def _check_short(refused: Exception) -> None:
    assert len(str(refused)) <= MOST_WORDS, f"{len(str(refused))} characters"


def link_frames(chance: Random) -> None:
    """A stream's frames, altered and cut anywhere: never more comes out than went in, and little is held."""
    writes = [chance.randbytes(chance.choice((0, 1, 5, 300))) for _ in range(chance.randint(0, 4))]
    wire = b"".join(bytes(piece) for data in writes for piece in data_frames(data)) + END_FRAME
    if spoilt := chance.random() < 0.9:
        wire = altered(wire, chance)
    decoder, got, at = Decoder(), 0, 0
    try:
        while at < len(wire):
            piece = wire[at : at + chance.randint(1, 200)]
            at += len(piece)
            got += len(decoder.feed(piece))
            assert len(decoder._head) < 4
    except LinkBroken as broken:
        _check_short(broken)
        assert spoilt
        return
    assert got <= len(wire)
    assert spoilt or (decoder.ended and got == sum(map(len, writes)))
