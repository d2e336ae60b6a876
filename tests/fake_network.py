"""A network without a kernel's sockets, for who takes `make`: what `socket.socket` would make, this makes."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

_FULL = 2**64 - 2  # of an eventfd's counter: one that is full is not writable, and one that is empty not readable


class FakeNetwork:
    """SYNs that cross open a stream between the two, at once; one that meets a listener, too; others stay unanswered.

    It cannot represent RSTs, NATs, delay, data, nor a port that is taken.
    """

    def __init__(self) -> None:
        self.sockets: list[FakeSocket] = []

    def socket(self, family: int, kind: int, protocol: int) -> Any:
        """As `socket.socket`, for TCP."""
        if kind != socket.SOCK_STREAM:
            raise OSError(errno.EPROTONOSUPPORT, "TCP only")
        self.sockets.append(FakeSocket(self))
        return self.sockets[-1]

    def find(self, local: Any, remote: Any) -> FakeSocket | None:
        """The open socket with these ends; `remote` None for the listener."""
        open_ones = (each for each in self.sockets if each.fileno() >= 0)
        return next((each for each in open_ones if (each.local, each.remote) == (local, remote)), None)


class FakeSocket:
    """One end. `proto`, `type` and options are not represented."""

    def __init__(self, network: FakeNetwork, local: Any = None, remote: Any = None) -> None:
        self.network, self.local, self.remote = network, local, remote
        self.up, self.options, self.queue = remote is not None, {}, []  # type: ignore[var-annotated]
        self._descriptor = os.eventfd(0)

    def bind(self, address: Any) -> None:
        self.local = address

    def connect_ex(self, address: Any) -> int:
        self.remote = address
        os.eventfd_write(self._descriptor, _FULL)
        if (other := self.network.find(address, self.local)) is not None:
            other.come_up()
            self.come_up()
        elif (listener := self.network.find(address, None)) is not None and listener.up:
            listener.queue.append(FakeSocket(self.network, address, self.local))
            os.eventfd_write(listener.fileno(), 1)
            self.come_up()
        return errno.EINPROGRESS

    def come_up(self) -> None:
        self.up = bool(os.eventfd_read(self._descriptor))

    def listen(self, backlog: int) -> None:
        self.up = True

    def accept(self) -> tuple[Any, Any]:
        if not self.queue:
            raise BlockingIOError
        os.eventfd_read(self._descriptor)
        sock = self.queue.pop()
        self.network.sockets.append(sock)
        return sock, sock.remote

    def recv(self, count: int, flags: int) -> bytes:
        raise BlockingIOError

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        self.options[level, name] = value

    def getsockopt(self, level: int, name: int, size: int = 0) -> Any:
        if level == socket.IPPROTO_TCP:
            raise OSError(errno.ENOPROTOOPT, "no TCP_INFO")
        return 0

    def getsockname(self) -> Any:
        return self.local

    def getpeername(self) -> Any:
        if not self.up:
            raise OSError(errno.ENOTCONN, "not connected")
        return self.remote

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
