"""Punches through two real Linux routers, and the packets between them as evidence."""

from __future__ import annotations

import pytest

from simopen import lab
from simopen.lab import Input, LinuxRouter
from tests.holepunch.test_punching import PORT, WORDS, meet, meet_apart

pytestmark = [pytest.mark.lab(router=True), pytest.mark.real_server]

DELAY_S = 0.02  # each host's: 40 ms one way


@pytest.mark.parametrize("each", [Input.ACCEPT, Input.DROP, Input.REJECT])
async def test_syns_fired_at_one_instant_cross(each: Input) -> None:
    async with lab.Network() as net:
        # The delay is what the two may fire apart and still cross: a busy machine is late by more than a quiet one.
        left, right = [await net.host(name, delay_s=0.06, nat=LinuxRouter(each)) for name in ("left", "right")]
        for said in await meet(left, right):
            assert said.get("heard") == WORDS, said
        record = await net.record()
    assert record.syns_crossed("left", "right")


@pytest.mark.parametrize("each", [Input.ACCEPT, Input.DROP, Input.REJECT])
async def test_instants_that_differ_still_meet(each: Input) -> None:
    """What is refused is fired again, and meets the peer's SYN or its listener; what is dropped opened a hole.

    The record shows the routers' outer sides, and so not, to the last ms, whether two SYNs met inside or outside.
    """
    async with lab.Network() as net:
        left, right = [await net.host(name, delay_s=DELAY_S, nat=LinuxRouter(each)) for name in ("left", "right")]
        for said in await meet_apart(left, right, [0.045, 0.1, 0.5]):
            assert said.get("heard") == WORDS, said
        record = await net.record()
    if each is Input.DROP:
        assert not any(passage.sent.is_rst for passage in record)
        for number in range(3):  # one SYN each
            syns = [passage for passage in record if passage.sent.is_syn and passage.sent.source.port == PORT + number]
            assert {passage.source for passage in syns[:2]} == {"left", "right"}


async def test_what_leaves_a_random_router_has_another_port_and_is_answered_where_it_came_from() -> None:
    """The peer has no filter, and its listener catches what comes from a port that nobody could know."""
    async with lab.Network() as net:
        left = await net.host("left", delay_s=DELAY_S, nat=LinuxRouter(random=True))
        right = await net.host("right", delay_s=DELAY_S)
        for said in await meet(left, right, apart_s=0.1):
            assert said.get("heard") == WORDS, said
        record = await net.record()
    sources = {passage.sent.source.port for passage in record.syns("left", "right")}
    assert PORT not in sources
