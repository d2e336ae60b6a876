"""`simopen demo`: two hosts behind two NATs, from nothing to "I love you." on both sides.

Theory of operation: each host runs the command that a user would run, `simopen connect`, with an instant and the
other's public address; nothing here knows more than they do. In the lab the packets are recorded and drawn. Where no
lab can be had, two processes on loopback do the same, without NATs and without a record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator, Sequence

from simopen import lab
from simopen.cli.console import answer, fitted
from simopen.lab.draw.text_diagram import sequence
from simopen.model.endpoint import ANY
from simopen.net.sockets import open_socket

WORDS = "I love you."
PORT = 1314
# Two interpreters have to start before the instant; a loaded machine takes its time.
_LEAD_S = 2.5


async def run(delay_s: float, *, as_json: bool) -> int:
    """The demo in the lab, or on loopback where there is none. `delay_s`: one way. Returns the exit status."""
    missing = await asyncio.to_thread(lab.available)
    if missing is not None:
        return await on_loopback(missing, as_json=as_json)
    async with lab.Network() as net:
        left = await net.host("left", delay_s=delay_s / 2, nat=lab.Nat())
        right = await net.host("right", delay_s=delay_s / 2, nat=lab.Nat())
        if not as_json:
            answer(_scene(left, right, delay_s))
        at = time.time() + _LEAD_S
        ended = await asyncio.gather(
            left.run(_command(right.public_address, PORT, at), stdin=f"{WORDS}\n".encode()),
            right.run(_command(left.public_address, PORT, at), stdin=f"{WORDS}\n".encode()),
        )
        record = await net.record()
    crossed = record.opened_simultaneously("left", "right")
    status = _tell(("left", "right"), ended, as_json=as_json, crossed=crossed)
    if not as_json:
        answer(f"\n{sequence(record, 'left', 'right')}\n")
        answer("The SYNs crossed: each side sent its own before the other's came." if crossed else "No crossing SYNs.")
    return status


async def on_loopback(why: str | None, *, as_json: bool) -> int:
    """Two processes on this machine's loopback. `why` not the lab; None where nobody wanted it. Returns the status."""
    with _two_ports() as ports:
        if not as_json:
            answer(fitted(f"No lab here: {why}.\n", sys.stdout) * bool(why), end="")
            answer("Two processes on loopback, no NAT and no record of packets:")
            answer(f"left is 127.0.0.1:{ports[0]}, right is 127.0.0.1:{ports[1]}; both fire in {_LEAD_S:g} s ...")
        at = time.time() + _LEAD_S
        ended = await asyncio.gather(
            _here(_command("127.0.0.1", ports[1], at, local=ports[0])),
            _here(_command("127.0.0.1", ports[0], at, local=ports[1])),
        )
    return _tell(("left", "right"), ended, as_json=as_json, crossed=None)


def _scene(left: lab.Host, right: lab.Host, delay_s: float) -> str:
    ends = (("left", left, right), ("right", right, left))
    rows = [(f"{one.address} behind {one.public_address}", name, other.public_address) for name, one, other in ends]
    width = max(len(where) for where, *_ in rows)
    return (
        f"Two hosts, each behind a NAT that drops what nobody asked for, {delay_s * 1e3:g} ms one way:\n"
        + "".join(
            f"{where:{width}}  {name + '$':6} simopen connect {peer} {PORT} --at T\n" for where, name, peer in rows
        )
        + f"Both fire from port {PORT} at the same instant, in {_LEAD_S:g} s ..."
    )


def _command(host: str, port: int, at: float, *, local: int | None = None) -> list[str]:
    command = [sys.executable, "-m", "simopen", "connect", host, str(port), "--at", str(at), "--no-ntp", "--json"]
    return command if local is None else [*command, "--local-port", str(local)]


async def _here(command: Sequence[str]) -> lab.Completed:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        stdout, stderr = await process.communicate(f"{WORDS}\n".encode())
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return lab.Completed(process.returncode, stdout, stderr)


@contextlib.contextmanager
def _two_ports() -> Iterator[tuple[int, int]]:
    """Two ports that nothing on this host has, held on every address, so that the kernel gives them to nobody else."""
    every = ANY[socket.AF_INET], 0
    with open_socket(every, socket.AF_INET) as one, open_socket(every, socket.AF_INET) as other:
        yield one.getsockname()[1], other.getsockname()[1]


def _tell(names: Sequence[str], ended: Sequence[lab.Completed], *, as_json: bool, crossed: bool | None) -> int:
    said = {name: _last_line(done.stderr) for name, done in zip(names, ended, strict=True)}
    heard = {name: done.stdout.decode(errors="replace").strip() for name, done in zip(names, ended, strict=True)}
    if as_json:
        answer(json.dumps({"heard": heard, "crossed": crossed, **said}))
    else:
        for name in names:
            word = heard[name] or f"nothing: {said[name].get('message')}"
            answer(fitted(f"{name:>6} hears: {word}{_took(said[name])}", sys.stdout))
    return 0 if all(word == WORDS for word in heard.values()) else 1


def _last_line(stderr: bytes) -> dict[str, object]:
    try:
        found = json.loads(stderr.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {"message": stderr.decode(errors="replace").strip()}
    return dict(found)


def _took(said: dict[str, object]) -> str:
    report = said.get("report")
    if not isinstance(report, dict) or report.get("elapsed_s") is None:  # 0.0: the kernel counts in jiffies
        return ""
    elapsed_ms, late_us = report["elapsed_s"] * 1e3, report["late_s"] * 1e6
    return f"   (connected {elapsed_ms:.1f} ms after its SYN, which left {late_us:.0f} µs after the instant)"
