"""The process that every lab of a program is forked from: `python -m simopen.lab.process.fork_server FD`.

Theory of operation. What a lab imports costs a third of a second of a core, most of it the codecs of netlink and of
packets; a fork of a process that has imported it costs some ms. So a program's first lab starts the fork server, which
imports, and then forks a lab whenever it is told to: with a suite of tests, each has a lab of its own for little. It
has one thread and nothing open but its socket. It ends when that does, so with its owner, however that went; the labs
have sockets of their own.

The owner is no parent of its labs: it waits for a pidfd, and asks the fork server for the status. What a lab complains
of is in a memory file, which neither side can block on.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from functools import partial
from pathlib import Path
from subprocess import DEVNULL
from typing import NoReturn

from simopen.errors import LabError
from simopen.lab.process.forks import keep_from_children
from simopen.lab.process.messages import (
    Done,
    Failed,
    Fork,
    Forked,
    ForkServerAnswer,
    ForkServerRequest,
    Reap,
    Reaped,
    receive,
    send,
)

_TAIL = 2000  # characters of a program's complaint in an error message


class Child:
    """A process that the fork server has forked: a lab, or the trial of one."""

    def __init__(self, server: ForkServer, pid: int, handle: int, complaint: int) -> None:
        self._fork_server = server
        self._complaint = complaint
        self.pid = pid
        self.handle = handle
        """A pidfd: readable when the process has ended."""

    def kill(self) -> None:
        """End it now."""
        signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def reap(self) -> tuple[int, str]:
        """Wait for its end. Returns its status as `subprocess` has it, and the end of what it wrote to standard error.

        Where the fork server has ended before, nobody knows the status: then it is 1 where there is a complaint, else
        0.
        """
        complaint = partial(_contents, self._complaint)
        try:
            answer, _ = self._fork_server.request(Reap(self.pid))
        except LabError:
            return int(bool(complaint())), complaint()
        assert isinstance(answer, Reaped)
        return answer.returncode, complaint()

    def close(self) -> None:
        """Let go of it. It goes on."""
        os.close(self.handle)
        os.close(self._complaint)


class ForkServer:
    """The owner's side of it. Every call blocks: starting it for as long as it imports, the others for some ms."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._owner = os.getpid()
        self._complaint = os.memfd_create("simopen-fork-server-complaint")
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keep_from_children(self._channel)
        try:
            with theirs:
                self._process = _start(theirs.fileno(), self._complaint)
        except BaseException:
            self._let_go()
            raise
        atexit.register(self.close)
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether it can be asked: not where this process is a fork of its owner, nor when it has ended."""
        return self._owner == os.getpid() and self._channel.fileno() >= 0

    def fork(self, job: Fork, channel: socket.socket | None = None) -> Child:
        """Have a process forked that does this, on that socket. Raises: LabError."""
        complaint = os.memfd_create("simopen-lab-complaint")
        try:
            fds = (complaint,) if channel is None else (complaint, channel.fileno())
            answer, (handle,) = self.request(job, fds)
        except BaseException:
            os.close(complaint)
            raise
        assert isinstance(answer, Forked)
        return Child(self, answer.pid, handle, complaint)

    def request(self, message: ForkServerRequest, fds: tuple[int, ...] = ()) -> tuple[ForkServerAnswer, list[int]]:
        """Ask, and wait for the answer. Raises: LabError where it refuses, or has ended."""
        with self._asking:
            try:
                send(self._channel, message, fds)
            except OSError as error:
                raise self._gone() from error
            return self._receive()

    def close(self) -> None:
        """End it. The labs go on."""
        atexit.unregister(self.close)
        if self.usable:
            self._let_go()
            self._process.wait()

    def _let_go(self) -> None:
        self._channel.close()
        os.close(self._complaint)

    def _receive(self) -> tuple[ForkServerAnswer, list[int]]:
        try:
            found = receive(self._channel)
        except OSError as error:
            raise self._gone() from error
        if found is None:
            raise self._gone()
        answer, fds = found
        if isinstance(answer, Failed):
            raise LabError(answer.reason)
        return answer, fds  # type: ignore[return-value]

    def _gone(self) -> LabError:
        complaint = _contents(self._complaint) if self.usable else "it was closed"
        self.close()
        return LabError(f"the process that labs are forked from has ended: {complaint}")


_starting = threading.Lock()
_fork_servers: list[ForkServer] = []  # this process's, where it has one


def _begin_in_child() -> None:
    """Another thread of the parent's may have held the lock, and none of them is there."""
    global _starting  # noqa: PLW0603
    _starting = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_in_child)


def fork_server() -> ForkServer:
    """This process's, started where there is none. Raises: LabError."""
    with _starting:
        if not (_fork_servers and _fork_servers[0].usable):
            _fork_servers[:] = [ForkServer()]
        return _fork_servers[0]


def tail(output: bytes) -> str:
    """The end of a program's output, as text for a message."""
    return output.decode(errors="replace").strip()[-_TAIL:]


def _start(channel: int, complaint: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(channel)],
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=complaint,
        pass_fds=(channel,),
        env=_environment(),
        cwd="/",
        start_new_session=True,  # Ctrl-C is the owner's to handle
    )


def _contents(file: int) -> str:
    return tail(os.pread(file, os.fstat(file).st_size, 0))


def _environment() -> dict[str, str]:
    """The environment in which the fork server finds the very modules that this process would."""
    package = str(Path(__file__).resolve().parents[3])
    paths = [str(Path(path).resolve()) for path in sys.path]  # "" is the working directory
    return {**os.environ, "PYTHONPATH": os.pathsep.join([package, *paths])}


class _Parent:
    """The fork server's own side."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._ended: dict[int, int] = {}  # pid -> wait status, of those that nobody has asked for yet

    def run(self) -> None:
        send(self._channel, Done())
        while (found := receive(self._channel)) is not None:
            self._collect()
            message, fds = found
            match message:
                case Fork():
                    self._fork(message, fds)
                case Reap(pid):
                    status = self._ended.pop(pid) if pid in self._ended else os.waitpid(pid, 0)[1]
                    send(self._channel, Reaped(os.waitstatus_to_exitcode(status)))

    def _collect(self) -> None:
        """Take the statuses of those that have ended, so that none stays a zombie whose owner was in a hurry."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._ended[ended[0]] = ended[1]
        except ChildProcessError:
            pass

    def _fork(self, job: Fork, fds: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            send(self._channel, Failed(f"no process for a lab: {error}"))
        else:
            if pid == 0:
                self._channel.close()
                _become(job, fds)
            handle = os.pidfd_open(pid)
            send(self._channel, Forked(pid), (handle,))
            os.close(handle)
        for fd in fds:
            os.close(fd)


def _become(job: Fork, fds: list[int]) -> NoReturn:
    from simopen.lab.process import supervisor

    code = 1
    try:
        os.dup2(fds[0], sys.stderr.fileno())
        os.close(fds[0])
        serves = len(fds) > 1
        code = supervisor.serve(fds[1], job.seed, job.link) if serves else supervisor.probe(job.link, job.router)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(arguments: list[str]) -> None:
    """Serve on the socket of that descriptor until it ends."""
    from simopen.lab.host import namespaces, router_namespace
    from simopen.lab.process import supervisor

    del namespaces, router_namespace, supervisor  # loaded is all they need to be
    gc.freeze()  # a lab that looked for garbage in it would copy the pages that it shares
    with socket.socket(fileno=int(arguments[0])) as channel:
        os.set_inheritable(channel.fileno(), False)
        _Parent(channel).run()


if __name__ == "__main__":
    main(sys.argv[1:])
