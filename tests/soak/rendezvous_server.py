"""What clients send a rendezvous server, altered: it is answered or refused, and never raises anything else."""

from __future__ import annotations

import contextlib
import json
from random import Random

from simopen.errors import StunError
from simopen.nat import stun, stun_answer
from simopen.nat.stun_answer import Back, ConnectBack
from simopen.signalling.server_conversation import House
from simopen.signalling.server_limits import Limits
from tests.signalling.clients import Talk
from tests.soak.parsers import altered

_T = bytes(range(12))
_LIMITS = Limits(messages_at_once=10**6, bad_messages=10**6, rooms=20, rooms_tried_at_once=50, kept_bytes=5_000)
_SAID: tuple[dict[str, object], ...] = (
    {"type": "bind", "appid": "app", "side": "s1", "id": "a1"},
    {"type": "list"},
    {"type": "allocate", "id": 7},
    {"type": "claim", "nameplate": "4"},
    {"type": "release", "nameplate": "4"},
    {"type": "open", "mailbox": "m1"},
    {"type": "add", "phase": "pake", "body": "00ff" * 20, "id": "b2"},
    {"type": "close", "mailbox": "m1", "mood": "happy"},
    {"type": "ping", "ping": 3},
)
TALKS = 10


def conversation(chance: Random) -> None:
    """A few clients say what they may, in any order and altered; the rooms' accounts must add up at the end."""
    house, now = House(_LIMITS), 0.0
    talks = [Talk(house, f"side {number % 4}", whose=f"192.0.2.{number % 3}") for number in range(TALKS // 2)]
    talks += [Talk(house) for _ in range(TALKS - len(talks))]
    for _ in range(TALKS):
        talk, data = chance.choice(talks), json.dumps(chance.choice(_SAID)).encode()
        talk.now = now = now + chance.choice((0.0, 0.1, 100.0))
        for sending in talk.hear(altered(data, chance) if chance.random() < 0.5 else data):
            assert sending.last if not sending.data else json.loads(sending.data)
        if chance.random() < 0.1:
            talk.conversation.leave(now)
            house.rooms.expire(now)
    for talk in talks:
        talk.conversation.leave(now)
    assert house.rooms.size <= _LIMITS.kept_bytes
    house.rooms.expire(now + _LIMITS.room_s)
    assert (len(house.rooms), house.rooms.size) == (0, 0)
    house.accounts.sweep(now + _LIMITS.room_s)
    assert len(house.accounts) == 0


def stun_request(chance: Random) -> None:
    """A Binding request, altered."""
    back = chance.choice((None, ConnectBack(Back.CAN, Back.CAN)))
    with contextlib.suppress(StunError):
        stun_answer.read(altered(stun.request(_T, connect_back=back), chance))
