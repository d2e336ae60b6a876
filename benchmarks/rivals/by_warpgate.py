"""warpgate 4.0.14's `PunchClient.run_engine(tcp_selector_punch_engine)`, set up as its own plugin does.

Like `traversal/plugins/tcp_punch/main.py`: FAST_PUNCH_PARAMS (1.5 s of SYNs, then up to 1.5 s of waiting), the
reference time and the punch time as UTC seconds with a fraction, our external address for electing who chooses the
stream. Other than there: the one known endpoint instead of 16 ports that both derive from the time; this thread instead
of an executor's, and no copying through loopback; no NTP, since both hosts have one clock. The plugin fixes the instant
1 s ahead, and so does this order.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from warpgate.traversal.plugins.tcp_punch.boundary_lib import FAST_PUNCH_PARAMS
from warpgate.traversal.plugins.tcp_punch.punch_client import PunchClient
from warpgate.traversal.plugins.tcp_punch.punch_defs import PortAlloc
from warpgate.traversal.plugins.tcp_punch.tcp_punch_engine import tcp_selector_punch_engine

from benchmarks.rivals.obeying import Answer, Order, established, obey


def punch(order: Order) -> tuple[Answer, Callable[[], object]]:
    client = PunchClient(order["peer"], order["host"], order["public"], params=FAST_PUNCH_PARAMS)
    client.port_allocs.append(PortAlloc(order["port"], order["port"]))
    now_s = time.time()
    client.set_timestamp(now_s)
    client.set_punch_time(now_s + (order["at_ns"] - time.monotonic_ns()) / 1e9)
    sock = client.run_engine(tcp_selector_punch_engine)
    if sock is None:
        raise ConnectionError("run_engine returned None")
    return established(), sock.close


if __name__ == "__main__":
    obey(punch)
