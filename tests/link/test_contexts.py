"""Contexts are ready before the instant, or it is said what this host lacks."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simopen.errors import LinkError
from simopen.link import contexts
from simopen.link.contexts import Ready
from simopen.link.keys import identity
from simopen.link.session import Role, Session
from tests.link.peers import sessions

MINE = identity(sessions()[0], Role.INITIATOR)


def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextlib.contextmanager
def nowhere(secret: bytes) -> Iterator[str]:
    yield "/nowhere/at/all"


@pytest.mark.parametrize("way", [contexts.in_memory, contexts.in_file])
def test_a_secret_is_read_from_a_place_that_is_this_users_and_gone_afterwards(way: contexts.KeepSecret) -> None:
    with way(b"the secret") as path:
        assert Path(path).read_bytes() == b"the secret"
        assert os.stat(path).st_mode & 0o077 == 0 or "/fd/" in path
    assert not os.path.exists(path)
    contexts.load(context(), MINE, (way,))


def test_where_memory_cannot_be_had_a_file_is() -> None:
    contexts.load(context(), MINE, (nowhere, contexts.in_file))


def test_where_nothing_can_be_had_that_is_said() -> None:
    with pytest.raises(LinkError, match="TLS takes its key from a file, and none can be had"):
        contexts.load(context(), MINE, (nowhere, nowhere))


def test_a_bare_key_makes_no_context() -> None:
    with pytest.raises(ValueError, match="bare"):
        contexts.ready(Session.bare(bytes(32)))


@pytest.mark.parametrize("policy", ["SignatureAlgorithms = ECDSA+SHA256", "MaxProtocol = TLSv1.2"])
def test_a_host_that_cannot_says_so_before_anything_is_sent(policy: str, tmp_path: Path) -> None:
    """As a policy for the whole host forbids Ed25519, or TLS 1.3."""
    settings = tmp_path / "openssl.cnf"
    settings.write_text(
        f"openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n{policy}\n", encoding="ascii"
    )
    code = (
        "from simopen.errors import LinkError\nfrom simopen.link.contexts import require_ed25519\n"
        "try:\n    require_ed25519()\nexcept LinkError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPENSSL_CONF": str(settings)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("no link can be made: this Python's TLS (OpenSSL"), done.stderr
    assert "Ed25519" in done.stdout


def set_clock(made: Ready, now_s: int) -> None:
    """Have OpenSSL take this for the time, in seconds since 1970, as it verifies certificates with this context."""
    openssl = ctypes.CDLL(_ssl.__file__)  # with all that it was linked with
    openssl.SSL_CTX_get0_param.restype = ctypes.c_void_p
    inside = ctypes.c_void_p.from_address(id(made.context) + object.__basicsize__)  # CPython's first member: SSL_CTX *
    parameters = ctypes.c_void_p(openssl.SSL_CTX_get0_param(inside))
    openssl.X509_VERIFY_PARAM_set_time(parameters, ctypes.c_int64(now_s))


def verify_each_other(*clocks_s: int) -> None:
    """Raises: ssl.SSLError."""
    both = [contexts.ready(session) for session in sessions()]
    for made, now_s in zip(both, clocks_s, strict=True):
        set_clock(made, now_s)
    contexts._shake_hands(*both)


@pytest.mark.parametrize("mine_s", [0, 2**31 - 1, 2**31, 2**32, 253402300700])
@pytest.mark.parametrize("theirs_s", [0, 2**31, 2_000_000_000])
def test_a_link_comes_up_whatever_the_two_clocks_say(mine_s: int, theirs_s: int) -> None:
    """1970, either side of 2038, 2106, the end of 9999."""
    verify_each_other(mine_s, theirs_s)


@pytest.mark.parametrize("beyond_s", [-1, 253402300800])
def test_the_clock_of_that_test_is_the_one_that_counts(beyond_s: int) -> None:
    with pytest.raises(ssl.SSLError, match="certificate"):
        verify_each_other(beyond_s, 0)
