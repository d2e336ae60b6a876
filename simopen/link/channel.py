"""One socket's side of a link, from the first byte to the last: bytes in, bytes out, and no socket.

Theory of operation. Pure: no clock, no loop; Python's `ssl` works on buffers in memory. A channel goes through

    NONCE     the two nonces, where two sides share only a key (`nonces.py`)
    SESSION   ... and so the session is known, but its context is yet to be made: who runs the channel says when
    HELLO     TLS's handshake, in which each side proves the key
    PROVEN    the peer has proven it, and which socket is kept is open
    UP        both keep this one

The initiator has the peer's proof before its own leaves. So it holds its own back until it `choose`s this socket, and
sends it with the choice byte and its first data in one segment; what it does not choose, it closes. The responder is
PROVEN when the initiator's proof has come, and UP when the choice byte has, which it answers by a byte of its own.
Until that has come, the initiator knows only that its choice is on the way: what fails meanwhile is a link that never
was, `Refused`; what fails later is `LinkBroken`.

TLS ends nothing here: neither a FIN nor TLS's own end (close_notify) ends a stream, but its last frame.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

from simopen.errors import LinkBroken
from simopen.link.contexts import ALPN, Ready, ready
from simopen.link.frames import END_FRAME, Bytes, Decoder, data_frames
from simopen.link.nonces import Nonces
from simopen.link.session import Role, Session
from simopen.model.proof import Reason

CHOICE = b"\x01"
"""The first byte that TLS carries, in either direction: the initiator's choice, and the responder's answer."""
MOST_HANDSHAKE = 16384
"""Bytes that a peer may send before it has proven anything. A whole handshake's are some 800."""
# A TLS record of the handshake. Its version is for old routers, and TLS ignores it (RFC 8446 §5.1); this does not.
_HELLO = {Role.INITIATOR: b"\x16\x03\x03", Role.RESPONDER: b"\x16\x03\x01"}
_HELLO_BYTES = 3
_RECORD = 2**14  # RFC 8446 §5.1: it holds no more


class State(Enum):
    """How far a channel is."""

    NONCE = "waiting for the peer's nonce"
    SESSION = "waiting for this side's context"
    HELLO = "waiting for the peer's proof"
    PROVEN = "waiting for the choice"
    UP = "up"
    DEAD = "refused"


_UNPROVEN = (State.NONCE, State.SESSION, State.HELLO)


class Refused(Exception):  # noqa: N818 - says what happened
    """This stream is none with the peer. `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


# OpenSSL's words (`ssl.SSLError.reason`) for what the other end sent, or refused by an alert.
_REASONS = {
    "CERTIFICATE_VERIFY_FAILED": Reason.OTHER_KEY,
    "BAD_SIGNATURE": Reason.OTHER_KEY,
    "TLSV1_ALERT_UNKNOWN_CA": Reason.OTHER_KEY,
    "TLSV1_ALERT_DECRYPT_ERROR": Reason.OTHER_KEY,
    "SSLV3_ALERT_BAD_CERTIFICATE": Reason.OTHER_KEY,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": Reason.OTHER_KEY,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Reason.NO_CERTIFICATE,
}


def at_once(channel: Channel, session: Session) -> None:
    """Make the context there and then. Raises: LinkError, where this host cannot."""
    channel.begin(ready(session))


OnSession: TypeAlias = "Callable[[Channel, Session], object]"


class Channel:
    """Feed what comes from the socket, send what `outgoing` holds. `state` says how far it is.

    Args:
        ready: the session's context; None where the peer's nonce is needed for it.
        nonces: this socket's exchange; None where the session is known.
        on_session: called once the nonces have made a session; sees to it that `begin` is called with its context.
            Left out, that is at once.
    """

    def __init__(self, ready: Ready | None, nonces: Nonces | None = None, on_session: OnSession = at_once) -> None:
        self.state = State.NONCE
        self.answered = False
        self.role: Role | None = None
        self._nonces, self._on_session = nonces, on_session
        self._before = 0
        self._hello = b""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._theirs = b""
        self.seed = b""
        self._decoder = Decoder()
        self._all_read = False
        self._own_end = False
        self._fault: LinkBroken | Refused | None = None
        if nonces is not None:
            self._outgoing.write(nonces.mine)
        elif ready is not None:
            self.begin(ready)

    @property
    def is_bare(self) -> bool:
        """Whether the session was made by nonces."""
        return self._nonces is not None

    @property
    def tls(self) -> ssl.SSLObject | None:
        """TLS's own object, once there is one."""
        return self._tls

    @property
    def has_begun(self) -> bool:
        """Whether the other side has begun TLS's handshake, and not ended it."""
        return self.state is State.HELLO and len(self._hello) == _HELLO_BYTES

    @property
    def ended(self) -> bool:
        """Whether the peer has ended its stream, and all of it has been read."""
        return self._decoder.ended

    @property
    def is_drained(self) -> bool:
        """Whether `read` has nothing to say, and no end to tell, until more is received."""
        return self._all_read and not self.ended

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        holds_back = not self.answered and self.state is State.PROVEN and self.role is Role.INITIATOR
        return b"" if holds_back else self._outgoing.read()

    def receive(self, data: Bytes) -> None:
        """Take what came from the socket. Where this raises, what `outgoing` holds tells the peer so.

        Raises:
            Refused: this is not the peer, or no link with it.
            LinkError: `on_session` does.
        """
        self._all_read = False
        if self.answered:  # and so up: most of what ever comes
            self._incoming.write(data)
            return
        if self.state in _UNPROVEN:
            self._before += len(data)
        if self.state is State.NONCE:
            data = self._exchange(bytes(data))
        self._incoming.write(data)
        if self.state in _UNPROVEN:
            self._hello += bytes(data[: _HELLO_BYTES - len(self._hello)])
            self._go_on()
        if self.state is State.PROVEN and self.role is Role.RESPONDER:
            self._look_for_choice()

    def receive_eof(self) -> None:
        """The peer sends no more. Raises: Refused before the link is up, LinkBroken where its stream has no end."""
        if self.state is not State.UP:
            raise self.dead(Reason.NOT_CHOSEN if self.state is State.PROVEN else Reason.GONE)
        if not self.ended:
            raise self.broken("it was cut on the way, or the peer's program or host died")

    def _exchange(self, data: bytes) -> bytes:
        assert self._nonces is not None
        try:
            session, rest = self._nonces.feed(data)
        except ValueError:
            raise self.dead(Reason.OWN) from None
        if session is not None:
            self.state = State.SESSION
            self._on_session(self, session)
        return rest

    def begin(self, ready: Ready) -> None:
        """Shake hands, now that the session's context is there. Raises: as `receive`."""
        self.role, self._theirs, self.seed = ready.role, ready.theirs, ready.seed
        server_side = ready.role is Role.RESPONDER
        self._tls = ready.context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self.state = State.HELLO
        self._go_on()

    def _go_on(self) -> None:
        if self.state is State.HELLO:
            self._check_hello()
            self._shake_hands()
        if self.state in _UNPROVEN and self._before > MOST_HANDSHAKE:
            raise self.dead(Reason.TOO_MUCH)

    def _check_hello(self) -> None:
        assert self.role is not None
        hello = _HELLO[self.role]
        if not hello.startswith(self._hello):
            both_begin = self.role is Role.INITIATOR and self._hello == _HELLO[Role.RESPONDER]
            raise self.dead(Reason.SAME_ROLE if both_begin else Reason.NO_LINK)

    def _shake_hands(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise self.dead(_REASONS.get(error.reason or "", Reason.NO_LINK)) from error
        if self._tls.getpeercert(binary_form=True) != self._theirs:
            raise self.dead(Reason.OTHER_KEY)
        if self._tls.selected_alpn_protocol() != ALPN:
            raise self.dead(Reason.NO_LINK)
        self.state = State.PROVEN

    def dead(self, reason: Reason) -> Refused:
        """No link comes of this any more; returns the error that says so."""
        self.state = State.DEAD
        return Refused(reason)

    def broken(self, why: str) -> LinkBroken | Refused:
        """The link is over; returns the error that says so, and of one that the peer has not answered for, that."""
        refused = self.dead(Reason.NOT_CHOSEN)
        return LinkBroken(f"the link ended, and the peer did not end it: {why}") if self.answered else refused

    def choose(self) -> None:
        """The initiator keeps this socket: its proof and the choice byte are now `outgoing`."""
        assert self.state is State.PROVEN
        self.state = State.UP
        self._seal(CHOICE)

    def _look_for_choice(self) -> None:
        if (first := self._unseal_first()) is None:
            return
        if first != CHOICE:
            raise self.dead(Reason.NO_LINK)
        self.state, self.answered = State.UP, True
        self._seal(CHOICE)

    def write(self, data: Bytes) -> None:
        """Have data sent."""
        for piece in data_frames(data):
            self._seal(piece)

    def write_end(self) -> None:
        """End this side's stream; once is enough."""
        if not self._own_end:
            self._own_end = True
            self._seal(END_FRAME)

    def _seal(self, data: Bytes) -> None:
        assert self._tls is not None
        sealed = self._tls.write(data)
        while sealed < len(data):
            sealed += self._tls.write(memoryview(data)[sealed:])

    def read(self) -> bytes | None:
        """What the peer has sent that is here by now, maybe b""; None where all that has come is read.

        Raises:
            LinkBroken: it was altered, or makes no sense. What came before that has been read.
            Refused: so it is, and the peer has not answered this side's choice before.
        """
        if self._fault is not None:
            self.state = State.DEAD
            raise self._fault
        if self._all_read or not (self.answered or self.take_answer()):
            return None
        pieces: list[bytes] = []
        try:
            self._read_into(pieces)
        except (LinkBroken, Refused) as fault:
            if not any(pieces):
                raise
            self._fault, self.state = fault, State.UP  # what came before it is read first
        return b"".join(pieces) if pieces else None

    def _read_into(self, pieces: list[bytes]) -> None:
        assert self._tls is not None
        unseal, feed = self._tls.read, self._decoder.feed
        try:
            while data := unseal(_RECORD):
                pieces.append(feed(data))
        except ssl.SSLWantReadError:
            self._all_read = True  # an exception is as dear as a record: the next call needs none
            return
        except ssl.SSLError as error:
            raise self._altered(error) from error
        self._take_close_notify()

    def give_up(self) -> None:
        """The answer has not come in time. Raises: Refused."""
        raise self.dead(Reason.NOT_CHOSEN)

    def take_answer(self) -> bool:
        """Whether the responder's answer is here by now. Raises: as `read`."""
        first = self._unseal_first()
        if first not in (None, CHOICE):
            raise self.broken("its answer makes no sense")
        self.answered = first is not None
        return self.answered

    def _unseal_first(self) -> bytes | None:
        assert self._tls is not None
        try:
            first = self._tls.read(1)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLError as error:
            raise self._altered(error) from error
        if not first:
            self._take_close_notify()
        return first

    def _altered(self, error: ssl.SSLError) -> LinkBroken | Refused:
        return self.broken(f"what came is not what the peer sent, or the peer refuses ({error.reason or error})")

    def _take_close_notify(self) -> None:
        if not self.ended:
            raise self.broken("it ended TLS without ending the stream")
