"""A session's TLS contexts: this side shows its role's certificate, and trusts the other role's alone.

Theory of operation. Making one takes a ms or two, and the interpreter's lock, so it is done before the instant wherever
the session is known by then. Nothing of the platform's is trusted: no authorities, no names, no older TLS.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from simopen.errors import LinkError
from simopen.link.keys import Identity, identity, seed_bytes
from simopen.link.session import Kind, Role, Session

ALPN = "simopen/1"
SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT})
"""What this host may have again in a moment: a descriptor, memory, room for a file."""


@dataclass(frozen=True, slots=True)
class Ready:
    """This side's role and context, the certificate, DER, that the peer must show, and what both may keep."""

    role: Role
    context: ssl.SSLContext
    theirs: bytes
    seed: bytes = field(repr=False)


KeepSecret: TypeAlias = Callable[[bytes], AbstractContextManager[str]]


def ready(session: Session) -> Ready:
    """The context of a session that has a role.

    Raises:
        LinkError: this host's TLS cannot do it. The message says what it lacks.
    """
    if session.role is None:
        raise ValueError("a bare key makes no context: it takes what the two sides have said")
    require_ed25519()
    return _ready(session, session.role)


@functools.cache
def require_ed25519() -> None:
    """Shake hands with ourselves, once: what a host's policy for cryptography forbids, it forbids before the instant.

    Raises: LinkError.
    """
    mine, theirs = (Session.between(Kind.NONCES, bytes(32), *each) for each in ((b"a", b"b"), (b"b", b"a")))
    sides = [_ready(session, role) for session in (mine, theirs) if (role := session.role) is not None]
    try:
        _shake_hands(*sides)
    except ssl.SSLError as error:
        raise _unable(error) from error


def _shake_hands(one: Ready, other: Ready) -> None:
    """In memory. Raises: ssl.SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        one.context.wrap_bio(back, there, server_side=one.role is Role.RESPONDER),
        other.context.wrap_bio(there, back, server_side=other.role is Role.RESPONDER),
    ]
    for end in ends * 3:  # hello, hello and proof, proof
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    for end in ends:
        end.do_handshake()


def _ready(session: Session, role: Role) -> Ready:
    mine, theirs = identity(session, role), identity(session, role.other)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if role is Role.RESPONDER else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if role is Role.RESPONDER:
            context.num_tickets = 0  # nothing is resumed: the next stream is another session
        # Else it sends records for old routers' sake that both sides skip unread, altered ones too.
        context.options &= ~ssl.OP_ENABLE_MIDDLEBOX_COMPAT
        context.set_alpn_protocols([ALPN])
        context.load_verify_locations(cadata=theirs.certificate)
        load(context, mine)
    except MemoryError as error:
        raise LinkError("no link can be made: this host has no memory left") from error
    except ssl.SSLError as error:
        raise _unable(error) from error
    return Ready(role, context, theirs.certificate, seed_bytes(session))


def _unable(error: Exception) -> LinkError:
    return LinkError(
        f"no link can be made: this Python's TLS ({ssl.OPENSSL_VERSION}) does not do TLS 1.3 with Ed25519, or "
        f"this host's policy forbids it ({error})"
    )


@contextlib.contextmanager
def in_memory(secret: bytes) -> Iterator[str]:
    """A path to a file that is in memory alone, and of this process. Raises: OSError."""
    descriptor = os.memfd_create("simopen")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(secret)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_file(secret: bytes) -> Iterator[str]:
    """A path to a file that only this user can read, and that is gone afterwards. Raises: OSError."""
    descriptor, path = tempfile.mkstemp(prefix="simopen-")
    try:
        with open(descriptor, "wb") as file:
            file.write(secret)
        yield path
    finally:
        Path(path).unlink()


WAYS: tuple[KeepSecret, ...] = (in_memory, in_file) if hasattr(os, "memfd_create") else (in_file,)


def load(context: ssl.SSLContext, mine: Identity, ways: tuple[KeepSecret, ...] = WAYS) -> None:
    """Give the context this side's certificate and private key, which `ssl` takes from a path only.

    Raises:
        ssl.SSLError: it does not take that kind of key.
        LinkError: there is no way to hand them over.
    """
    refused: list[OSError] = []
    for way in ways:
        try:
            with way(mine.private_pem + mine.certificate_pem) as path:
                context.load_cert_chain(path)
        except ssl.SSLError:
            raise
        except OSError as error:  # no /proc, say, or no memory
            refused.append(error)
        else:
            return
    why = " and ".join(dict.fromkeys(f"{error.strerror}" for error in refused))
    told = next((error for error in refused if error.errno in SHORT), refused[-1])
    raise LinkError(f"no link can be made: TLS takes its key from a file, and none can be had ({why})") from told


def passes(error: LinkError) -> bool:
    """Whether this host was only short of something, so that the next context may be made."""
    cause = error.__cause__
    return isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno in SHORT)
