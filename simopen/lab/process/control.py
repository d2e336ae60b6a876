"""The user's side of the lab's process: start it, ask it, end it.

Theory of operation. Answers come in the order of the requests, so a queue of futures matches them. The socket's end is
the order to go, so that closing needs no conversation, and a killed owner needs no cleaning up. Works on any asyncio
loop that watches descriptors.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
from collections import deque
from functools import cache
from importlib.util import find_spec

from simopen.errors import LabError
from simopen.lab.process.fork_server import Child, fork_server
from simopen.lab.process.forks import keep_from_children
from simopen.lab.process.messages import Answer, Failed, Fork, LinkKind, Request, receive, send

_PROBE_TIMEOUT_S = 30
_CLOSE_TIMEOUT_S = 10

Reply = tuple[Answer, list[int]]


class Control:
    """One lab process, and the conversation with it."""

    def __init__(self, channel: socket.socket, child: Child) -> None:
        self._channel = channel
        self._child = child
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._asking = asyncio.Lock()
        asyncio.get_running_loop().add_reader(channel.fileno(), self._read)

    @property
    def pid(self) -> int:
        return self._child.pid

    async def request(self, message: Request) -> Reply:
        """Ask, and wait for the answer; the descriptors with it are the caller's.

        Raises: LabError where the lab refuses, or has ended.
        """
        async with self._asking:  # one at a time: the socket's buffer is finite
            answer = self._expect()
            self._send(message)
            return await _granted(answer)

    def _expect(self) -> asyncio.Future[Reply]:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        return answer

    async def first_word(self) -> Reply:
        """What the lab says unasked when it is up. Raises: LabError."""
        return await _granted(self._expect())

    async def close(self) -> None:
        """End the lab and all that runs in it. Raises: LabError where it had failed."""
        self.hang_up()
        try:
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await _readable(self._child.handle)
            except TimeoutError:
                self._child.kill()
            returncode, complaint = self._child.reap()
        finally:
            self._child.close()
        if returncode:
            raise LabError(f"the lab's process ended with {returncode}: {complaint}")

    def hang_up(self, why: str = "the lab's process has ended") -> None:
        """Close the socket, which ends the lab. Waiting requests fail."""
        if self._channel.fileno() < 0:
            return
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._channel.close()
        self._fail_waiting(why)

    def _send(self, message: Request) -> None:
        try:
            send(self._channel, message)
        except OSError as error:
            self._waiting.pop().cancel()
            raise LabError("the lab's process has ended") from error

    def _read(self) -> None:
        try:
            message = receive(self._channel)
        except BlockingIOError:
            return
        except LabError as error:
            self.hang_up(str(error))
            return
        except OSError:
            message = None
        if message is None:
            self.hang_up()
            return
        answer, fds = message
        self._resolve(answer, fds)

    def _resolve(self, answer: object, fds: list[int]) -> None:
        waiting = self._waiting.popleft()
        if waiting.done():  # its asker was cancelled
            close_all(fds)
            return
        waiting.set_result((answer, fds))  # type: ignore[arg-type]

    def _fail_waiting(self, why: str) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(LabError(why))
        self._waiting.clear()


async def start_lab(seed: int, link: LinkKind) -> tuple[Control, int, int | None]:
    """Start a lab. Returns its control, its lifeline, and the descriptor of its user namespace where it has one.

    Raises: LabError.
    """
    require_extra()
    try:
        await asyncio.to_thread(fork_server)  # the first time that takes as long as its imports
        control = _spawn(seed, link)
    except OSError as error:
        raise LabError(f"no lab can be had here: {error.strerror}") from error
    try:
        _, (lifeline, *others) = await control.first_word()
    except BaseException as error:
        await _abandon(control, error)
        raise
    return control, lifeline, others[0] if others else None


@cache
def available(link: str = "auto", *, router: bool = False) -> str | None:
    """Why no lab can be had here, in words; None where one can. Tries it, once per process, in about 0.4 s.

    With `router`, whether a `LinuxRouter` can be had in it.

    Raises: ValueError for a link that is none of "auto", "tun", "veth".
    """
    kind = LinkKind(link)
    try:
        require_extra()
        returncode, complaint = _try(Fork(kind, router=router))
    except LabError as error:
        return str(error)
    except OSError as error:
        return f"no lab can be had here: {error}"
    return None if returncode == 0 else f"no lab can be had here: {complaint or f'the trial ended with {returncode}'}"


def require_extra() -> None:
    """Raises: LabError where this is not Linux, or the extra [lab] is not installed."""
    if sys.platform != "linux":
        raise LabError(f"the lab is made of Linux network namespaces, and this is {sys.platform}")
    missing = [name for name in ("dpkt", "pyroute2") if find_spec(name) is None]
    if missing:
        # By their own names: an index that has no project "simopen" has these.
        raise LabError(f"the lab needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _spawn(seed: int, link: LinkKind) -> Control:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keep_from_children(ours).setblocking(False)
    with theirs:
        try:
            child = fork_server().fork(Fork(link, seed), theirs)
        except BaseException:
            ours.close()
            raise
    return Control(ours, child)


def _try(job: Fork) -> tuple[int, str]:
    """Have a lab tried. Raises: LabError."""
    child = fork_server().fork(job)
    try:
        ended = select.poll()
        ended.register(child.handle, select.POLLIN)
        if not ended.poll(_PROBE_TIMEOUT_S * 1000):
            child.kill()
        return child.reap()
    finally:
        child.close()


async def _readable(fd: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


async def _abandon(control: Control, error: BaseException) -> None:
    """Close a lab that did not come up; what it complained of goes with the error."""
    try:
        await control.close()
    except LabError as complaint:
        error.add_note(str(complaint))


async def _granted(answer: asyncio.Future[Reply]) -> Reply:
    try:
        message, fds = await answer
    except asyncio.CancelledError:
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            close_all(answer.result()[1])
        raise
    if isinstance(message, Failed):
        close_all(fds)
        raise LabError(message.reason)
    return message, fds
