"""A plain loop: a fresh socket and another `connect` as soon as one has failed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from benchmarks.rivals.obeying import Answer, Order, established, obey, sleep_until


def punch(order: Order) -> tuple[Answer, Callable[[], object]]:
    sleep_until(order["at_ns"])
    until = time.monotonic() + order["window_s"]
    while (left_s := until - time.monotonic()) > 0:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((order["host"], order["port"]))
        sock.settimeout(left_s)
        try:
            sock.connect((order["peer"], order["port"]))
        except OSError:
            sock.close()
        else:
            return established(), sock.close
    raise TimeoutError("no stream within the window")


if __name__ == "__main__":
    obey(punch)
