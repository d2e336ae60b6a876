"""One plain `connect` at the instant, and that is all."""

from __future__ import annotations

import socket
from collections.abc import Callable

from benchmarks.rivals.obeying import Answer, Order, established, obey, sleep_until


def punch(order: Order) -> tuple[Answer, Callable[[], object]]:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((order["host"], order["port"]))
    sock.settimeout(order["window_s"])
    sleep_until(order["at_ns"])
    try:
        sock.connect((order["peer"], order["port"]))
    except OSError:
        sock.close()
        raise
    return established(), sock.close


if __name__ == "__main__":
    obey(punch)
