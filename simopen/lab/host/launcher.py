"""Enter a host's namespaces, then become the program to run there.

Run by path, as `python -I -S launcher.py USER_NAMESPACE NETWORK_NAMESPACE LIFELINE PROGRAM ARGUMENT...`: descriptors
(-1: none). It must be quick and have one thread, since setns(2) refuses a user namespace to a process with more; so it
imports nothing of this package. A preexec_fn would do this between fork and exec in the user's process, where another
thread may hold any lock.

The lab closes its end of the lifeline, a pipe, before it looks for what runs in its hosts, to end it. So who is in a
host and then finds the other end open will be found.

What runs on a host must never speak to the real network, so the descriptor is not trusted: setns(2) takes others, too,
a process's for one, and one of the network outside would be entered without a word.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_OWN_NETWORK = "/proc/self/ns/net"
_NOT_FOUND = 127  # what a shell says of a program that is not there


def _enter(fd: int, kind: int) -> None:
    if fd < 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, kind) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")
    os.close(fd)


def _is_cut(lifeline: int) -> bool:
    poll = select.poll()
    poll.register(lifeline, 0)  # POLLHUP comes unasked
    return bool(poll.poll(0))


def main(arguments: list[str]) -> None:
    """Does not return: becomes the program, or exits with a reason on standard error."""
    user, network, lifeline = (int(argument) for argument in arguments[:3])
    program = arguments[3:]
    _enter(user, _CLONE_NEWUSER)
    outside = os.stat(_OWN_NETWORK).st_ino
    _enter(network, _CLONE_NEWNET)
    if os.stat(_OWN_NETWORK).st_ino == outside:
        sys.exit("this is no host's network, but the one outside of the lab")
    if _is_cut(lifeline):
        sys.exit("the lab is gone")
    os.close(lifeline)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        print(f"{program[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(_NOT_FOUND)


if __name__ == "__main__":
    main(sys.argv[1:])
