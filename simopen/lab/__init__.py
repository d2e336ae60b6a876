"""A small internet on one machine: hosts, delay, loss and NATs, with a record of every packet.

::

    async with lab.Network(seed=1) as net:
        left = await net.host("left", delay_s=0.020, nat=lab.Nat(unsolicited=lab.Unsolicited.RESET))
        right = await net.host("right", delay_s=0.020)
        result = await left.run(["ping", "-c1", right.public_address])
        record = await net.record()

Every host is a network namespace; a process of its own forwards the packets between them. Needs Linux and
`pip install 'simopen[lab]'`, no root where ordinary users may make user namespaces. `available()` says what is missing.
Nothing else in simopen imports this package but the command line.
"""

from simopen.lab.chain import Chain
from simopen.lab.conditions import Conditions
from simopen.lab.control import available
from simopen.lab.nat import Allocation, Filtering, Mapping, Nat, Pooling, Translator, Unsolicited
from simopen.lab.network import Completed, Host, Network
from simopen.lab.packet import Endpoint, Flags, Packet
from simopen.lab.record import Origin, Passage, Record, Verdict

__all__ = [
    "Allocation",
    "Chain",
    "Completed",
    "Conditions",
    "Endpoint",
    "Filtering",
    "Flags",
    "Host",
    "Mapping",
    "Nat",
    "Network",
    "Origin",
    "Packet",
    "Passage",
    "Pooling",
    "Record",
    "Translator",
    "Unsolicited",
    "Verdict",
    "available",
]
