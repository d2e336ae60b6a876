"""A conversation of two channels in memory, in which a byte of one side's is spoilt on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simopen.errors import LinkBroken
from simopen.link.channel import Channel, Refused, State
from simopen.link.nonces import NONCE_BYTES
from simopen.link.session import Session
from tests.link.peers import KEY, bare, channel, sessions

WAYS: dict[str, Callable[..., tuple[Session, Session]]] = {"session": sessions, "bare": bare}
Channels = tuple[Channel, Channel]


def channels(way: str = "session", key: bytes = KEY) -> Channels:
    """The initiator's and the responder's, silent so far."""
    one, other = WAYS[way](key)
    return channel(one, b"\xf0" * NONCE_BYTES), channel(other, b"\x0f" * NONCE_BYTES)


def repeated(data: bytes, at: int) -> bytes:
    """With that byte twice; or an earlier one, where all from there on are alike: one more at the end spoils nothing.

    What is random ends in two bytes that are alike once in 256 times.
    """
    while at and len(set(data[at:])) == 1:
        at -= 1
    return data[: at + 1] + data[at:]


SPOILS: dict[str, Callable[[bytes, int], bytes]] = {
    "flipped": lambda data, at: data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :],
    "dropped": lambda data, at: data[:at] + data[at + 1 :],
    "repeated": repeated,
    "cut": lambda data, at: data[:at],
}


def spoilt(way: str, speaker: int, at: int, spoil: Callable[[bytes, int], bytes]) -> tuple[list[bytes], list[str]]:
    """Play a conversation in which one byte of a side's is spoilt: what each application gets, and what ends each."""
    both = channels(way)
    got, ends, passed = [b"", b""], ["", ""], 0
    for side, data in tolerant(both, got, ends):
        if side == speaker and passed <= at < passed + len(data):
            data[:] = spoil(bytes(data), at - passed)
            passed = -(2**30)
        elif side == speaker:
            passed += len(data)
    return got, ends


def tolerant(both: Channels, got: list[bytes], ends: list[str]) -> Iterator[tuple[int, bytearray]]:
    """As `conversation`, but each piece may be changed on its way; then a FIN comes for whoever still waits."""
    wrote = [False, False]
    for _ in range(12):
        for side in (0, 1):
            mine, theirs = both[side], both[1 - side]
            if side == 0 and mine.state is State.PROVEN:
                mine.choose()
            if mine.state is State.UP and not wrote[side]:
                wrote[side] = True
                mine.write(b"from %d" % side)
                mine.write_end()
            if data := bytearray(mine.outgoing()):
                yield side, data
                if not ends[1 - side]:
                    take(theirs, bytes(data), got, ends, 1 - side)
    for side in (0, 1):
        if not ends[side]:
            ended(both[side], ends, side)


def take(channel: Channel, data: bytes, got: list[bytes], ends: list[str], side: int) -> None:
    try:
        channel.receive(data)
        while channel.state is State.UP and (read := channel.read()) is not None:
            got[side] += read
    except (Refused, LinkBroken) as error:
        ends[side] = type(error).__name__


def ended(channel: Channel, ends: list[str], side: int) -> None:
    try:
        channel.receive_eof()
        ends[side] = "end"
    except (Refused, LinkBroken) as error:
        ends[side] = type(error).__name__


def lengths(way: str) -> tuple[int, int]:
    """How much each side says in a conversation as `spoilt` plays it."""
    count = [0, 0]
    for side, data in tolerant(channels(way), [b"", b""], ["", ""]):
        count[side] += len(data)
    return count[0], count[1]


def never_taken_for_the_peers(how: str, way: str, speaker: int, at: int) -> None:
    """The listener refuses it or takes the link for broken, and has got nothing but a piece of what was said."""
    got, ends = spoilt(way, speaker, at, SPOILS[how])
    listener = 1 - speaker
    where = f"{how} at {at}: {got} {ends}"
    assert ends[listener] in ("Refused", "LinkBroken"), where
    assert (b"from %d" % speaker).startswith(got[listener]), where
    # The other one is told so before it has taken anything for answered, or sees that its peer has gone.
    assert ends[speaker] in ("Refused", "LinkBroken", "end"), where
    if ends[listener] == "Refused":
        assert got[listener] == b"", where


def positions(how: str, way: str, speaker: int) -> range:
    """Each byte that can be spoilt so."""
    return range(lengths(way)[speaker] - (how == "repeated"))
