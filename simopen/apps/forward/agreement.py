"""What the two sides tell each other before anything is carried: what each wants, and what each refuses.

Theory of operation: each side says in a line of JSON what it wants to listen for, and answers the other's in another:
which of those targets it does not allow. Where one is refused, both are told, and nothing is carried.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from simopen.apps.forward.targets import LONGEST_NAME, MOST_FORWARDS, Forward, Target, named
from simopen.errors import ForwardError
from simopen.model.endpoint import check_port
from simopen.model.wording import quoted
from simopen.net.os_errors import reason

T = TypeVar("T")
Ready: TypeAlias = Callable[[Sequence[Forward]], object]
VERSION = 2
ANSWER_S = 30.0


async def agreed(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    forwards: Sequence[Forward],
    allowed: Iterable[Target],
) -> tuple[Forward, ...]:
    """What the peer wants to listen for, where each side allows what the other asks for. Raises: ForwardError."""
    wants = [{"listen": each.listen, "to": each.to} for each in forwards]
    theirs = await _told(reader, writer, {"simopen forward": VERSION, "forwards": wants}, _read_forwards)
    refused = [each.to for each in theirs if not allows(allowed, *each.to)]
    refuses = await _told(reader, writer, {"refused": refused}, _read_refusals)
    if refuses:
        raise ForwardError(f"the peer does not allow connections to {_listed(refuses)}: it has to be told to")
    if refused:
        raise ForwardError(f"the peer wants connections to {_listed(refused)}, which were not allowed here")
    return theirs


def allows(allowed: Iterable[Target], host: str, port: int) -> bool:
    """Whether one of the targets is that."""
    return any(target.covers(host, port) for target in allowed)


def _listed(targets: Iterable[tuple[str, int]]) -> str:
    return ", ".join(dict.fromkeys(quoted(named(*each)) for each in targets))


async def _told(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, says: dict[str, Any], read: Callable[[Any], T]
) -> T:
    """Say that in a line, and read the peer's."""
    writer.write(json.dumps(says).encode() + b"\n")
    await writer.drain()
    try:
        async with asyncio.timeout(ANSWER_S):
            line = await reader.readuntil(b"\n")
        return read(json.loads(line))
    except TimeoutError as error:
        if error.errno is not None:
            raise
        raise ForwardError(
            f"the peer has not said within {ANSWER_S:g} s what it wants: does it forward, too?"
        ) from None
    except asyncio.IncompleteReadError:
        raise ForwardError("the peer has ended the stream: it forwards nothing, or ended on its side's error") from None
    except (ValueError, TypeError, LookupError, RecursionError, asyncio.LimitOverrunError):
        raise ForwardError("the peer speaks something else: does it forward, too, with this version?") from None


def _read_forwards(said: Any) -> tuple[Forward, ...]:
    if said["simopen forward"] != VERSION or len(said["forwards"]) > MOST_FORWARDS:
        raise ValueError
    return tuple(Forward(_read_endpoint(each["listen"]), _read_endpoint(each["to"])) for each in said["forwards"])


def _read_refusals(said: Any) -> list[tuple[str, int]]:
    return [_read_endpoint(each) for each in said["refused"][:MOST_FORWARDS]]


def _read_endpoint(said: Any) -> tuple[str, int]:
    host, port = said
    if not isinstance(host, str) or not 0 < len(host) <= LONGEST_NAME:
        raise ValueError
    return host, check_port(port, "the peer's port")


def before(error: Exception) -> ForwardError:
    """The stream broke while the two sides got ready."""
    why = reason(error) or "the peer has been silent for too long"  # a time-out says nothing
    return ForwardError(f"the stream broke before anything could be carried: {why}", is_broken=True)
