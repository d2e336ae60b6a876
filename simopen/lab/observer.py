"""Tells whoever connects which endpoint it is seen at, as a rendezvous does: `python observer.py PORT`.

It answers `ADDRESS PORT` and a newline, and holds the connection until the other side closes it: its FIN could end the
mapping that was learnt. Run by path, with the standard library alone, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import socketserver
import sys


class _Told(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a NAT, or a side that was killed, may reset it
            self.wfile.write("{} {}\n".format(*self.client_address[:2]).encode())
            self.rfile.read()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def main(port: int) -> None:
    """Serve until killed; says "ready" when it can be called."""
    with _Server(("", port), _Told) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
