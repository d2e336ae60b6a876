"""Detect a peer's SYN before the instant, without accepting it or answering.

Theory of operation: a peer whose clock is ahead, or who was told an earlier instant, fires while this side still waits.
To know it, this socket listens, with a filter of the kernel's own (classic BPF, unprivileged) that drops the SYNs of
the peers' addresses; the kernel counts what a socket's filter dropped, and the count is all that is read. So the peer
is not let in, no stream can come up before the instant, and nothing is answered; its kernel sends the SYN again after
1 s. Whoever else comes is turned away by a RST.

It costs the peer nothing that counts: after the first SYN seen, and in any case well before the instant, this socket is
closed, and the next SYN meets a RST, as ever, so that the peer fires again at once.

Limits: Linux only. It sees what reaches this host: behind a NAT or firewall that filters, nothing does before we fire.
A SYN of another program at the peer's address looks the same. Two sockets that listen on one port share what comes, so
it does not look where another one listens; one that a second process opens meanwhile, on this very port, would lose
some of what comes to it.
"""

from __future__ import annotations

import array
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable

from simopen.net import local_ports, sock_diag
from simopen.net.local_ports import LocalPorts
from simopen.net.sockets import open_socket

# asm-generic/socket.h; SO_MEMINFO's array of u32 is numbered in linux/sock_diag.h.
_SO_ATTACH_FILTER, _SO_MEMINFO = 26, 55
_MEMINFO, _DROPS = struct.Struct("9I"), 8
# linux/filter.h and linux/bpf_common.h: load a word or a byte, `and`, jump if equal, return.
_LOAD, _LOAD_BYTE, _AND, _IF_EQUAL, _RETURN = 0x20, 0x30, 0x54, 0x15, 0x06
_NETWORK_HEADER = -0x100000 & 0xFFFFFFFF
_SOURCE = {4: 12, 6: 8}  # where the IP header has the source address
_FLAGS, _SYN_ACK, _SYN = 13, 0x12, 0x02  # in the TCP header, where a TCP socket's filter begins to count
_PASS, _DROP = 0xFFFFFFFF, 0
# Those who are turned away wait here until the next look; one too many would be counted as dropped.
_BACKLOG = 1024
# At one look: the loop waits meanwhile, 25 µs for each, and as many sockets as `MOST_AT_ONCE` may look at one time.
_MOST_TURNED_AWAY = 64

# A descriptor each, and ten looks a second: a thousand punches that wait for one instant need not all look.
MOST_AT_ONCE = 16


class EarlySynWatch:
    """A socket that sees SYNs of some addresses and lets nobody in. Close it before the port is listened on."""

    def __init__(
        self,
        local: tuple[str, int],
        family: socket.AddressFamily,
        addresses: Iterable[str],
        ports: LocalPorts = local_ports.shared,
    ) -> None:
        """Raises OSError where the kernel has no such filter or count, or the port cannot be had."""
        self._sock = open_socket(local, family)
        self._ports = ports
        ports.looking.add(self)
        ports.keep_from_children(self._sock)
        self._flooded = False
        try:
            _attach(self._sock, program(addresses))
            self._drops()
            self._sock.listen(_BACKLOG)
        except OSError:
            self.close()
            raise

    @property
    def port(self) -> int:
        """The local port that it is on."""
        return int(self._sock.getsockname()[1])

    def saw(self) -> bool:
        """Whether such a SYN has come by now."""
        turned_away = 0
        while turned_away < _MOST_TURNED_AWAY and self._turn_away():
            turned_away += 1
        self._flooded |= turned_away == _MOST_TURNED_AWAY  # the queue may be full, and one of theirs dropped, too
        return not self._flooded and self._drops() > 0

    def _turn_away(self) -> bool:
        try:
            self._sock.accept()[0].close()  # with the listener's SO_LINGER: a RST
        except OSError:
            return False
        return True

    def _drops(self) -> int:
        return int(_MEMINFO.unpack(self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS])

    def close(self) -> None:
        """Let the port be as it was."""
        self._ports.looking.discard(self)
        self._sock.close()


def watch(
    local: tuple[str, int],
    family: socket.AddressFamily,
    addresses: Iterable[str],
    ports: LocalPorts = local_ports.shared,
) -> EarlySynWatch | None:
    """A `EarlySynWatch`, where this host can have one, this process has few, and nobody listens on that port."""
    if not sys.platform.startswith("linux") or len(ports.looking) >= MOST_AT_ONCE or sock_diag.listens(local[1]):
        return None
    try:
        return EarlySynWatch(local, family, addresses, ports)
    except OSError:
        return None


def _attach(sock: socket.socket, code: bytes) -> None:
    instructions = array.array("B", code)
    address, length = instructions.buffer_info()
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", length // 8, address))


def program(addresses: Iterable[str]) -> bytes:
    """Drop SYNs (not SYN-ACKs, RSTs or what else is left over) of these addresses, all of one family; pass the rest."""
    code = [
        _instruction(_LOAD_BYTE, _FLAGS),
        _instruction(_AND, _SYN_ACK),
        _instruction(_IF_EQUAL, _SYN, yes=1),
        _instruction(_RETURN, _PASS),
    ]
    for address in addresses:
        code += _drop(ipaddress.ip_address(address))
    return b"".join([*code, _instruction(_RETURN, _PASS)])


def _drop(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[bytes]:
    """Compare word by word, and skip the rest of these instructions at the first that differs."""
    words = struct.unpack(f">{len(address.packed) // 4}I", address.packed)
    code = []
    for number, word in enumerate(words):
        code.append(_instruction(_LOAD, _NETWORK_HEADER + _SOURCE[address.version] + 4 * number))
        code.append(_instruction(_IF_EQUAL, word, no=2 * (len(words) - number - 1) + 1))
    return [*code, _instruction(_RETURN, _DROP)]


def _instruction(code: int, operand: int, *, yes: int = 0, no: int = 0) -> bytes:
    """linux/filter.h's struct sock_filter."""
    return struct.pack("HBBI", code, yes, no, operand)
