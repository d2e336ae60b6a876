"""`simopen self`, as it is typed."""

from __future__ import annotations

import json
import socket

from tests.cli.processes import Ports, running, simopen_run
from tests.loopback import HERE, ports

__all__ = ["ports"]


def test_self_gives_back_what_it_is_given(ports: Ports) -> None:
    status, heard, said = simopen_run("self", ports[0], given=b"I love me.")
    assert (status, heard) == (0, b"I love me.")
    me = f"127.0.0.1:{ports[0]}"
    assert said == f"{me} is connected to {me}: itself. What you type comes back\n10 bytes sent, 10 received\n"


def test_self_as_json(ports: Ports) -> None:
    status, heard, said = simopen_run("self", ports[0], "--json", given=b"I love me.")
    assert (status, heard) == (0, b"I love me.")
    me = f"127.0.0.1:{ports[0]}"
    assert json.loads(said) == {"local": me, "remote": me, "sent": 10, "received": 10, "error": None}


def test_self_on_a_port_that_is_in_use(ports: Ports) -> None:
    with running("self", ports[0]) as it:
        it.wait_for("itself")
        status, _, said = simopen_run("self", ports[0])
    assert (status, said) == (1, f"simopen: port {ports[0]} is in use: name another (simopen self {ports[0] + 1})\n")


def test_self_where_something_listens(ports: Ports) -> None:
    with socket.create_server((HERE, 0)) as server:
        status, _, said = simopen_run("self", server.getsockname()[1])
    assert status == 1
    assert said.startswith("simopen: ")
