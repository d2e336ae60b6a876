"""Many TCP connections over one stream, as `ssh -L` and `-R` carry them, both ways at once.

Theory of operation: the two sides say what they want and what they refuse (`agreement.py`), still over the link that
has proven who they are. Then they hand over its socket, and SSH takes that, with keys made of the link's seed
(`channels.py`): so nothing is sealed twice. The one that began the link is SSH's client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from simopen.apps.forward.agreement import ANSWER_S, Ready, agreed, before
from simopen.apps.forward.targets import MOST_FORWARDS, Forward, Target
from simopen.link.handover import hand_over
from simopen.link.session import Role
from simopen.model.wording import quoted
from simopen.net.streams import close

if TYPE_CHECKING:
    from simopen.link.transport import LinkTransport

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CLOSE_S = 2.0


def carrier() -> Callable[..., Awaitable[None]]:
    """What carries the connections. Raises: ImportError where it is not installed."""
    try:
        from simopen.apps.forward.channels import carry
    except ImportError as error:
        raise ImportError("asyncssh is missing, which carries the connections: pip install asyncssh") from error
    return carry


async def forward(
    stream: Streams,
    *,
    forwards: Sequence[Forward] = (),
    allow: Iterable[Target] = (),
    ready: Ready | None = None,
) -> None:
    """Carry connections until the peer ends it, or this is cancelled. The stream is closed with it.

    A target that cannot be reached ends its own connections alone. The logger `simopen.forward` warns of it on both
    sides, once until it can be.

    Args:
        stream: a (reader, writer) of `connect`'s or `meet`'s, with both ends proven, to a peer that calls this, too.
        forwards: what this side listens for, 64 at most.
        allow: where the peer's connections may go, from this host; nowhere where that is empty.
        ready: called with `forwards` once all of them are listened for, and the peer knows.

    Raises:
        ForwardError: the peer does not allow a target, or speaks something else; the stream broke.
        LocalEndpointError: a port of this host cannot be listened on.
        TypeError: no stream.
        ValueError: too many forwards, or nobody is proven at the stream's other end.
        ImportError: asyncssh is missing, which is the extra `ssh`.
    """
    carry = carrier()
    if len(forwards) > MOST_FORWARDS:
        raise ValueError(f"{len(forwards)} forwards: {MOST_FORWARDS} at most go over one stream")
    if not (isinstance(stream, tuple) and len(stream) == 2 and isinstance(stream[1], asyncio.StreamWriter)):
        raise TypeError(f"a stream is a (reader, writer) of connect's or meet's, not {quoted(stream)}")
    reader, writer = stream
    try:
        link: LinkTransport | None = writer.get_extra_info("simopen_link")
        if link is None:
            raise ValueError("nobody is proven at the other end of this stream: connect by tickets or with a key")
        allowed = tuple(allow)
        try:
            theirs = await agreed(reader, writer, forwards, allowed)
            async with asyncio.timeout(ANSWER_S):
                sock = await hand_over(stream)
        except OSError as error:
            raise before(error) from error
        await carry(
            sock,
            link.seed,
            forwards=forwards,
            allowed=allowed,
            theirs=theirs if link.role is Role.INITIATOR else None,
            ready=ready,
        )
    finally:
        await close(writer, _CLOSE_S)
