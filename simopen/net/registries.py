"""What all punches of a process share: what it holds of local ports, its streams that end, and the flows it has begun.

Theory of operation: a punch is given one value, and asks that; whoever wants punches that know nothing of each other,
as two hosts in one process do, gives each its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from simopen.net import delayed_close, local_ports, own_flows
from simopen.net.delayed_close import Endings
from simopen.net.local_ports import LocalPorts
from simopen.net.own_flows import Flows


@dataclass(frozen=True, slots=True)
class Registries:
    """Each is safe between threads, and knows of forks."""

    ports: LocalPorts = local_ports.shared
    endings: Endings = delayed_close.shared
    flows: Flows = own_flows.shared


shared = Registries()
