"""Programs that the tests run on hosts. Each says "ready" when a peer may speak to it: nobody sleeps to be in step."""

from __future__ import annotations

import sys

PREAMBLE = """
import hashlib, os, socket, sys, time
def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET
"""

# ADDRESS: answers one datagram with "seen ADDRESS PORT", its sender's.
UDP_SERVER = """
server = socket.socket(family(sys.argv[1]), socket.SOCK_DGRAM)
server.bind((sys.argv[1], 1314))
print("ready", flush=True)
data, sender = server.recvfrom(2000)
server.sendto(f"seen {sender[0]} {sender[1]}".encode(), sender)
"""

# TARGET WAIT_S: sends a datagram from port 5000, prints the answer, or "silence".
UDP_CLIENT = """
client = socket.socket(family(sys.argv[1]), socket.SOCK_DGRAM)
client.bind(("", 5000))
client.settimeout(float(sys.argv[2]))
client.connect((sys.argv[1], 1314))
client.send(b"?")
try:
    print(client.recv(2000).decode())
except TimeoutError:
    print("silence")
"""

# TARGET COUNT: sends numbered datagrams and does not listen.
UDP_BURST = """
client = socket.socket(family(sys.argv[1]), socket.SOCK_DGRAM)
for number in range(int(sys.argv[2])):
    client.sendto(b"%d" % number, (sys.argv[1], 1314))
"""

# TARGET: sends a datagram from port 1314, so that a NAT maps it, and is gone.
UDP_OPENER = """
client = socket.socket(family(sys.argv[1]), socket.SOCK_DGRAM)
client.bind(("", 1314))
client.sendto(b"!", (sys.argv[1], 9))
"""

# ADDRESS COUNT: prints the datagrams in the order in which they come.
UDP_SINK = """
server = socket.socket(family(sys.argv[1]), socket.SOCK_DGRAM)
server.bind((sys.argv[1], 1314))
server.settimeout(20)
print("ready", flush=True)
print(*(server.recv(2000).decode() for _ in range(int(sys.argv[2]))))
"""

# ADDRESS: takes one connection, reads it to its end, answers with the SHA-256 of it.
TCP_SERVER = """
server = socket.create_server((sys.argv[1], 1314), family=family(sys.argv[1]))
print("ready", flush=True)
stream, _ = server.accept()
digest = hashlib.sha256()
while data := stream.recv(65536):
    digest.update(data)
stream.sendall(digest.hexdigest().encode())
stream.close()
"""

# TARGET BYTES: sends that much, prints "same" where the digest that comes back is right.
TCP_CLIENT = """
data = os.urandom(int(sys.argv[2]))
stream = socket.create_connection((sys.argv[1], 1314), timeout=20)
stream.sendall(data)
stream.shutdown(socket.SHUT_WR)
print("same" if stream.makefile().read() == hashlib.sha256(data).hexdigest() else "different")
"""

# TARGET: connects once from port 1314, prints "connected" or the error's name. Starts when its standard input ends.
CONNECT = """
shot = socket.socket(family(sys.argv[1]))
shot.bind(("", 1314))
shot.settimeout(20)
print("ready", flush=True)
sys.stdin.read()
try:
    shot.connect((sys.argv[1], 1314))
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""

# TARGET TTL: sends a datagram with few hops, prints the address of the router that complains (IP_RECVERR).
TRACE = """
v6 = ":" in sys.argv[1]
level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
client = socket.socket(family(sys.argv[1]), socket.SOCK_DGRAM)
client.setsockopt(level, 25 if v6 else 11, 1)
client.setsockopt(level, socket.IPV6_UNICAST_HOPS if v6 else socket.IP_TTL, int(sys.argv[2]))
client.connect((sys.argv[1], 33434))
client.send(b"?")
import select, struct
poll = select.poll()
poll.register(client, 0)
poll.poll(10000)
_, ancillary, _, _ = client.recvmsg(2000, 512, 0x2000)
error = ancillary[0][2]
print(error[5], socket.inet_ntop(client.family, error[24:40] if v6 else error[20:24]))
"""

# Sends packets as they are, and keeps what arrives: "send HEX"; "until HEX" gives all up to the packet with that in it.
PROBE = """
import json
sockets = {4: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
           6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)}
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
tap.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
tap.bind(("net0", 3))
tap.settimeout(10)
def send(packet):
    version = packet[0] >> 4
    target = packet[16:20] if version == 4 else packet[24:40]
    sockets[version].sendto(packet, (socket.inet_ntop(sockets[version].family, target), 0))
def until(marker):
    packets = []
    while not packets or marker not in packets[-1]:
        packets.append(tap.recv(2000))
    print(json.dumps([packet.hex() for packet in packets]), flush=True)
print("ready", flush=True)
for line in sys.stdin:
    command, data = line.split()
    {"send": send, "until": until}[command](bytes.fromhex(data))
"""


def python(program: str, *arguments: object) -> list[str]:
    """The command that runs one of these."""
    return [sys.executable, "-c", PREAMBLE + program, *map(str, arguments)]
