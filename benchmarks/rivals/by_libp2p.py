"""py-libp2p 0.8.1's `DCUtRProtocol._perform_hole_punch`, between two hosts of its own that know each other's endpoint.

Like `DCUtRProtocol` after its SYNC message: the host listens on the punch port, so that the dials leave from there; one
side upgrades its dials as the responder, as the initiator of DCUtR does. Other than there: no relay, hence no CONNECT
and SYNC, and no half a round trip by the relay's clock: both are given the instant itself. A host is made anew for each
punch, outside the time that is measured but not outside the processor time. The stream is up when the call returns
True: Noise and the multiplexer have been negotiated then, and the peer is who it should be.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.dcutr import DCUtRProtocol
from multiaddr import Multiaddr

from benchmarks.rivals.obeying import Answer, Order, established, obey


def punch(order: Order) -> tuple[Answer, Callable[[], object]]:
    return trio.run(_punch, order), lambda: None


async def _punch(order: Order) -> Answer:
    keys = {first: create_new_key_pair(bytes([first]) * 32) for first in (True, False)}
    peer_id = ID.from_pubkey(keys[not order["first"]].public_key)
    host = new_host(key_pair=keys[order["first"]])
    async with host.run([Multiaddr(f"/ip4/{order['host']}/tcp/{order['port']}")]):
        protocol = DCUtRProtocol(host)
        address = Multiaddr(f"/ip4/{order['peer']}/tcp/{order['port']}/p2p/{peer_id}")
        await trio.sleep(max(0.0, (order["at_ns"] - time.monotonic_ns()) / 1e9))
        with trio.fail_after(order["window_s"]):
            done = await protocol._perform_hole_punch(peer_id, [address], as_responder=order["first"])
        answer = established()
        if not done:
            raise ConnectionError("_perform_hole_punch returned False")
        await trio.sleep(order["hold_s"])  # the stream lives in this loop
    return answer


if __name__ == "__main__":
    obey(punch)
