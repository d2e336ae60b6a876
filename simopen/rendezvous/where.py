"""Which rendezvous: what the caller says, `SIMOPEN_VIA`, or what was remembered in the user's configuration.

Both sides must name the same one. The file is `via` in the user's configuration directory (`platformdirs`): one line.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path

from simopen.errors import RendezvousUnreachable
from simopen.model.wording import quoted

PUBLIC = "ws://relay.magic-wormhole.io:4000/v1"
"""magic-wormhole's public mailbox server, which programs of their own app id may use. In the clear: what passes is
sealed, and the server sees from where, when, and how much."""
VARIABLE = "SIMOPEN_VIA"
WAYS = f"""\
to meet by a code, both sides name the same rendezvous, which passes their first messages on:
  a server of your own: `simopen serve` on a host that both reach, and --via wss://HOST:4000/v1; or, where it has no
    certificate, --via ws://HOST:4000/v1 --allow-plain
  magic-wormhole's public mailbox server: --via {PUBLIC}
  NATS: --via tls://HOST, or nats://HOST and --allow-plain
or put it into {VARIABLE}"""
_MOST_BYTES = 2048


def path() -> Path:
    """The file that remembers it. Raises: OSError where this user has no home."""
    from platformdirs import user_config_path

    try:
        return user_config_path("simopen", appauthor=False) / "via"
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, "this user has no home: set HOME, or XDG_CONFIG_HOME") from error


def named(via: str | None = None, environment: Mapping[str, str] = os.environ, file: Path | None = None) -> str | None:
    """The rendezvous's URL; None where nobody has named one.

    Raises: TypeError for what is no string; ValueError for an empty one.
    """
    if via is not None:
        if not isinstance(via, str):
            raise TypeError(f"via is the URL of a rendezvous, not {quoted(via)}")
        if not via.strip():
            raise ValueError("via is empty: it is the URL of a rendezvous, such as wss://rendezvous.example.org/v1")
        return via.strip()
    if VARIABLE in environment:  # empty: none, whatever is remembered
        return environment[VARIABLE].strip() or None
    return _remembered(file)


def required(via: str | None = None, environment: Mapping[str, str] = os.environ, file: Path | None = None) -> str:
    """As `named`. Raises: RendezvousUnreachable, which names the ways, where nobody has named one."""
    if (found := named(via, environment, file)) is None:
        raise RendezvousUnreachable(f"no rendezvous is named: {WAYS}")
    return found


def remember(via: str, file: Path | None = None) -> Path:
    """Name it from now on. Returns where that stands. Raises: OSError."""
    kept = path() if file is None else file
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
    fresh.write_text(f"{via}\n", encoding="utf-8")
    fresh.replace(kept)
    return kept


def _remembered(file: Path | None) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError), (file or path()).open(encoding="utf-8") as lines:
        return lines.read(_MOST_BYTES).partition("\n")[0].strip() or None
    return None
