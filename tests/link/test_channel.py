"""One socket's side, in memory: who is taken for the peer, who is not, and what each side then says."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from simopen.errors import LinkBroken
from simopen.link.channel import MOST_HANDSHAKE, Channel, Refused, State
from simopen.link.contexts import ready
from simopen.link.nonces import NONCE_BYTES, new_nonce
from simopen.link.session import Kind, Session
from simopen.model.proof import Reason
from tests.link.peers import KEY, OTHER_KEY, carry, channel, refusal, sessions
from tests.link.spoils import SPOILS, WAYS, Channels, channels, never_taken_for_the_peers, positions, spoilt


def up(way: str = "session") -> Channels:
    both = channels(way)
    carry(*both)
    both[0].choose()
    carry(*both)
    assert [each.state for each in both] == [State.UP] * 2
    assert both[0].read() is None  # it takes the answer in
    return both


def reasons(one: Channel, other: Channel) -> list[Reason]:
    return [refused.reason for refused in refusal(one, other)]


@pytest.mark.parametrize("way", WAYS)
def test_both_prove_the_key_and_data_goes_both_ways(way: str) -> None:
    one, other = up(way)
    assert one.answered
    for each, to in ((one, other), (other, one)):
        each.write(b"hello")
        carry(one, other)
        assert to.read() == b"hello"
        assert not to.ended
        each.write_end()
        carry(one, other)
        assert to.read() == b""
        assert to.ended
    for each in (one, other):
        assert each.tls is not None
        assert (each.tls.version(), each.tls.selected_alpn_protocol()) == ("TLSv1.3", "simopen/1")


@pytest.mark.parametrize("way", WAYS)
def test_the_initiators_choice_leaves_with_its_proof_and_not_before(way: str) -> None:
    one, other = channels(way)
    carry(one, other)
    assert (one.state, other.state) == (State.PROVEN, State.HELLO)
    assert one.outgoing() == b""
    one.choose()
    one.write(b"first")
    other.receive(one.outgoing())
    assert other.state is State.UP
    assert other.read() == b"first"


@pytest.mark.parametrize("way", WAYS)
def test_another_key_is_refused_by_both(way: str) -> None:
    one, _ = channels(way)
    _, other = channels(way, OTHER_KEY)
    assert reasons(one, other) == [Reason.OTHER_KEY] * 2


def test_another_session_of_the_same_key_is_refused_by_both() -> None:
    one, _ = channels()
    other = channel(sessions(of=(b"one's ticket", b"an older ticket"))[1])
    assert reasons(one, other) == [Reason.OTHER_KEY] * 2


def test_one_kind_of_session_is_not_another() -> None:
    texts = b"z", b"a"
    one = channel(Session.between(Kind.TICKETS, KEY, *texts))
    other = channel(Session.between(Kind.HELLOS, KEY, *reversed(texts)))
    assert reasons(one, other) == [Reason.OTHER_KEY] * 2


def test_two_initiators_refuse_each_other_at_once() -> None:
    one, other = channels()[0], channels()[0]
    assert reasons(one, other)[:2] == [Reason.SAME_ROLE] * 2


def test_two_responders_wait_for_each_other() -> None:
    """Only time tells; `handshake.py` sees to it."""
    one, other = channels()[1], channels()[1]
    assert reasons(one, other) == []
    assert one.state is other.state is State.HELLO


def test_a_bare_key_and_a_session_do_not_meet() -> None:
    for one, other in ((channels()[0], channels("bare")[1]), (channels("bare")[1], channels()[1])):
        assert Reason.NO_LINK in reasons(one, other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [0, 1])
def test_what_this_side_says_sent_back_is_refused(way: str, side: int) -> None:
    mine = channels(way)[side]
    if way == "session" and side == 1:
        assert mine.outgoing() == b""  # a responder says nothing that could be sent back
        return
    with pytest.raises(Refused) as told:  # noqa: PT012 - whichever of its words it is
        while said := mine.outgoing():
            mine.receive(said)
    assert told.value.reason is (Reason.OWN if way == "bare" else Reason.SAME_ROLE)


def test_two_sockets_of_one_side_spliced_are_refused_by_both() -> None:
    """One who knows nothing connects them: a nonce for each socket would have this side prove itself to itself."""
    nonce = new_nonce()
    one, other = (channel(Session.bare(KEY), nonce) for _ in range(2))
    assert reasons(one, other) == [Reason.OWN] * 2


@pytest.mark.parametrize("way", WAYS)
def test_a_man_in_the_middle_without_the_key_gets_nowhere(way: str) -> None:
    """He speaks the protocol with both, and relays what he can."""
    one, other = channels(way)
    his = channels(way, OTHER_KEY)
    for mine, theirs in ((one, his[1]), (his[0], other)):
        assert reasons(mine, theirs) == [Reason.OTHER_KEY] * 2


def other_context(change: Callable[[ssl.SSLContext], object], side: int) -> Channel:
    """A side with the key whose TLS differs."""
    made = ready(sessions()[side])
    change(made.context)
    return Channel(made)


def test_a_client_without_a_certificate_is_refused() -> None:
    made = ready(sessions()[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["simopen/1"])
    context.load_verify_locations(cadata=made.theirs)
    stranger = Channel(replace(made, context=context))
    other = channels()[1]
    carry(stranger, other)
    stranger.choose()
    stranger.write(b"secret")
    told = reasons(stranger, other)
    assert told[0] is Reason.NO_CERTIFICATE
    assert other.state is State.DEAD
    with pytest.raises(Refused):  # what it took for a link never was one
        stranger.read()


@pytest.mark.parametrize("side", [0, 1])
def test_who_speaks_another_protocol_inside_is_refused(side: int) -> None:
    odd = other_context(lambda context: context.set_alpn_protocols(["other/1"]), side)
    mine = channels()[1 - side]
    pair = (odd, mine) if side == 0 else (mine, odd)
    assert Reason.NO_LINK in reasons(*pair)


def test_an_older_tls_is_refused() -> None:
    def older(context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    assert Reason.NO_LINK in reasons(other_context(older, 0), channels()[1])


PLAIN = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\0" * 64,
    b"\xff" * 64,
    b"hello, peer! " * 9,
]


@pytest.mark.parametrize("words", PLAIN)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [0, 1])
def test_a_plain_talker_is_refused(words: bytes, way: str, side: int) -> None:
    mine = channels(way)[side]
    with pytest.raises(Refused) as told:  # noqa: PT012 - however soon
        for _ in range(9):
            mine.receive(words)
    assert told.value.reason in (Reason.NO_LINK, Reason.SAME_ROLE)


def test_garbage_without_end_is_refused_before_it_fills_memory() -> None:
    """A handshake message of 16 MB, of which every piece is in order."""
    mine = channels()[1]
    record = b"\x16\x03\x01\x40\x00"
    with pytest.raises(Refused) as told:  # noqa: PT012 - however soon
        mine.receive(record + b"\x01\xff\xff\xff" + bytes(16380))
        for _ in range(1000):
            mine.receive(record + bytes(16384))
    assert told.value.reason in (Reason.TOO_MUCH, Reason.NO_LINK)
    assert mine._incoming.pending <= 2 * MOST_HANDSHAKE


@pytest.mark.parametrize("way", WAYS)
def test_a_recorded_session_played_again_is_refused(way: str) -> None:
    for side in (0, 1):
        both = channels(way)
        said = list(conversation(both))
        mine = channels(way)[side]
        with pytest.raises((Refused, LinkBroken)):  # noqa: PT012 - however soon
            for speaker, data in said:
                if speaker != side:
                    mine.receive(data)
                if mine.state is State.PROVEN and side == 0:
                    mine.choose()
                while mine.state is State.UP and mine.read() is not None:
                    pass
        assert mine.state is not State.UP or not mine.answered


def conversation(both: Channels) -> Iterator[tuple[int, bytes]]:
    """Who says what, from the first byte to the first words both ways."""
    spoke = True
    while spoke:
        spoke = False
        for side in (0, 1):
            if side == 0 and both[0].state is State.PROVEN:
                both[0].choose()
                both[0].write(b"from the initiator")
            if data := both[side].outgoing():
                spoke = True
                yield side, data
                was_up = both[1 - side].state is State.UP
                both[1 - side].receive(data)
                if side == 0 and both[1].state is State.UP and not was_up:
                    both[1].write(b"from the responder")


def test_a_conversation_that_nobody_spoils_ends_well() -> None:
    for way in WAYS:
        assert spoilt(way, 0, 2**20, SPOILS["cut"]) == ([b"from 1", b"from 0"], ["end", "end"])


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("speaker", [0, 1])
def test_a_byte_spoilt_anywhere_is_never_taken_for_the_peers(how: str, way: str, speaker: int) -> None:
    """At every position, from the first byte of the handshake to the last of the first frames."""
    every = positions(how, way, speaker)
    # What follows two nonces is a session's conversation again: of that, some. All of it is in
    # `python -m tests.soak spoilt`.
    step = 5 if how == "flipped" else 7
    tried = every if way == "session" else [*every[:NONCE_BYTES], *every[NONCE_BYTES::step]]
    for at in tried:
        never_taken_for_the_peers(how, way, speaker, at)


def test_an_answer_that_makes_no_sense_is_no_link() -> None:
    one, other = channels()
    carry(one, other)
    one.choose()
    other._incoming.write(one.outgoing())
    assert other.tls is not None
    other.tls.do_handshake()
    other.tls.write(b"\x02")
    one.receive(other._outgoing.read())
    with pytest.raises(Refused):
        one.read()


def test_a_fin_before_the_answer_is_no_link_and_after_it_a_cut() -> None:
    one, other = channels()
    carry(one, other)
    one.choose()
    with pytest.raises(Refused):
        one.receive_eof()
    for each in up():
        each.read()
        with pytest.raises(LinkBroken, match="cut"):
            each.receive_eof()


def test_what_came_before_a_fault_is_read_first() -> None:
    one, other = up()
    one.write(b"all ")
    one.write(b"of it")
    said = one.outgoing()
    one.write(b"altered")
    altered = bytearray(one.outgoing())
    altered[-1] ^= 1
    other.receive(said + altered)
    assert other.read() == b"all of it"
    for _ in range(2):
        with pytest.raises(LinkBroken, match="not what the peer sent"):
            other.read()


def test_tlss_own_end_ends_no_stream() -> None:
    """close_notify says nothing of the data that was on its way: only the last frame does."""
    one, other = up()
    one.write(b"half of it")
    assert one.tls is not None
    with pytest.raises(ssl.SSLWantReadError):
        one.tls.unwrap()
    other.receive(one.outgoing())
    assert other.read() == b"half of it"
    with pytest.raises(LinkBroken, match="without ending the stream"):
        other.read()


def test_another_programs_close_notify_after_the_end_is_in_order() -> None:
    one, other = up()
    one.write_end()
    assert one.tls is not None
    with pytest.raises(ssl.SSLWantReadError):
        one.tls.unwrap()
    other.receive(one.outgoing())
    assert other.read() == b""
    assert other.read() is None
    assert other.ended
    other.receive_eof()


def test_a_choice_of_another_kind_is_refused() -> None:
    one, other = channels()
    carry(one, other)
    assert one.tls is not None
    one.tls.write(b"\x02")
    with pytest.raises(Refused):
        other.receive(one._outgoing.read())
