"""A small internet on one machine: hosts, delay, loss and NATs, with a record of every packet.

::

    async with lab.Network(seed=1) as net:
        left = await net.host("left", delay_s=0.020, nat=lab.Nat(unsolicited=lab.Unsolicited.RESET))
        right = await net.host("right", delay_s=0.020)
        result = await left.run(["ping", "-c1", right.public_address])
        record = await net.record()

In a NAT model's place a real router can stand: `nat=lab.LinuxRouter(lab.Input.REJECT)`, another namespace, with
nftables; `LinuxRouter(...).model` is the NAT model that does as it does. `available(router=True)` says what is missing.

A NAT may be described in a word or two (`presets.parse_nats("home+cgn")`, `"sequential,step=4"`), and a record may be
drawn: `draw.time_sequence.time_sequence(record, "left", "right", "out.svg")`. The record answers what a test wants to
know of packets: `record.syns_crossed("left", "right")`, `record.opened_simultaneously(...)`, `passage.steps` (what each
NAT on the way did), `record.to_pcap("punch.pcap")`.

In pytest, `pytest_plugins = ["simopen.lab.pytest_plugin"]` in a conftest gives the fixture `lab_network`, an entered
`Network` for each test, which skips with the reason where no lab can be had. On the command line,
`simopen lab --left home+cgn --right sequential` punches between two such hosts and explains what happened.

Every host is a network namespace; a process of its own forwards the packets between them. The first network of a
program takes a third of a second, and leaves a process behind until the program ends, which the labs of the others are
forked from in some ms. Needs Linux, dpkt and pyroute2 (the extra `lab`), and no root where ordinary users may make user
namespaces. `available()` says what is missing.
Nothing else in simopen imports this package but the command line.
"""

from typing import TYPE_CHECKING

from simopen._lazy import loader

if TYPE_CHECKING:
    from simopen.lab.nat.chain import Chain
    from simopen.lab.nat.model import Nat, Unsolicited
    from simopen.lab.nat.translator import Translator
    from simopen.lab.net.conditions import Conditions
    from simopen.lab.net.linux_router import Input, LinuxRouter
    from simopen.lab.net.record import Origin, Passage, Record, Verdict
    from simopen.lab.network import Completed, Host, Network
    from simopen.lab.packet import Flags, Packet
    from simopen.lab.process.control import available
    from simopen.model.endpoint import Endpoint
    from simopen.model.nat import Allocation, Filtering, Mapping, Pooling

__all__ = [
    "Allocation",
    "Chain",
    "Completed",
    "Conditions",
    "Endpoint",
    "Filtering",
    "Flags",
    "Host",
    "Input",
    "LinuxRouter",
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

_HOMES = {
    "Allocation": "simopen.model.nat",
    "Chain": "nat.chain",
    "Completed": "network",
    "Conditions": "net.conditions",
    "Endpoint": "simopen.model.endpoint",
    "Filtering": "simopen.model.nat",
    "Flags": "packet",
    "Host": "network",
    "Input": "net.linux_router",
    "LinuxRouter": "net.linux_router",
    "Mapping": "simopen.model.nat",
    "Nat": "nat.model",
    "Network": "network",
    "Origin": "net.record",
    "Packet": "packet",
    "Passage": "net.record",
    "Pooling": "simopen.model.nat",
    "Record": "net.record",
    "Translator": "nat.translator",
    "Unsolicited": "nat.model",
    "Verdict": "net.record",
    "available": "process.control",
}


if not TYPE_CHECKING:  # to a type checker it would mean that every name exists
    __getattr__ = loader(globals(), _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
