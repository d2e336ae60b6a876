"""The far end of a host's link: where the lab reads what the host sends, and writes what it receives.

Theory of operation. Two kinds, one Protocol. TUN gives bare IP packets and needs /dev/net/tun. Where that is closed,
as in most containers, a veth pair does: its far end lies in the lab's own namespace, which has no addresses, and is
read through AF_PACKET. A veth leaves checksums and segmentation to hardware that is not there, so these offloads are
turned off on the host's side. Neither end speaks ARP or neighbour discovery: the link has two ends only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from typing import Protocol

from pyroute2.ethtool.ioctl import IoctlEthtool

INTERFACE = "net0"  # every host's interface
MTU = 1500
_TUN_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_OFFLOADS = (
    "tx-checksumming",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
)  # as ethtool(8) names them
_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 3
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_BUFFER_BYTES = 4 << 20
_LONGEST_PACKET = 65535


class Link(Protocol):
    """A non-blocking source and sink of IP packets."""

    def fileno(self) -> int: ...

    def read(self) -> bytes | None:
        """The next packet, None where there is none now."""

    def write(self, packet: bytes) -> None:
        """Hand a packet over. What the host's kernel does not take is lost, as on a full queue. Raises: OSError."""

    def close(self) -> None: ...


class TunLink:
    """A TUN device, made in the calling thread's network namespace."""

    def __init__(self) -> None:
        self._fd = os.open(_TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(self._fd, _TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), _IFF_TUN_NO_PI))
        except OSError:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes | None:
        try:
            return os.read(self._fd, _LONGEST_PACKET)
        except BlockingIOError:
            return None

    def write(self, packet: bytes) -> None:
        os.write(self._fd, packet)

    def close(self) -> None:
        os.close(self._fd)


class VethLink:
    """The far end of a veth pair, in the calling thread's network namespace. `mac` is the host's."""

    def __init__(self, interface: str, mac: bytes) -> None:
        self._interface, self._mac = interface, mac
        flags = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, flags, 0)  # protocol 0: nothing comes before bind
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        _widen(self._socket)
        self._socket.bind((interface, _ETH_P_ALL))

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes | None:
        try:
            return self._socket.recv(_LONGEST_PACKET)
        except BlockingIOError:
            return None

    def write(self, packet: bytes) -> None:
        ethertype = _ETHERTYPES[packet[0] >> 4]
        self._socket.sendto(packet, (self._interface, ethertype, 0, 0, self._mac))

    def close(self) -> None:
        self._socket.close()


def tun_is_open() -> bool:
    """Whether this process may make TUN devices, as far as the device file says."""
    try:
        os.close(os.open(_TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def turn_offloads_off(interface: str) -> None:
    """Have this namespace's kernel finish every packet by itself: checksums, and one segment a packet.

    Raises: OSError; pyroute2's EthtoolError.
    """
    with contextlib.closing(IoctlEthtool(interface)) as kernel:
        for offload in _OFFLOADS:
            kernel.set_offload_flag(offload, 0)


def _widen(link: socket.socket) -> None:
    """As much receive buffer as is granted: a burst waits here while the lab handles another host's."""
    so_rcvbufforce = 33  # above the system's limit; init's network administrator only
    try:
        link.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, _BUFFER_BYTES)
    except PermissionError:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
