"""A Signaller over NATS: no server of ours, and as many nodes as it takes.

Theory of operation. NATS passes a message on to who listens at that moment, and keeps nothing. JetStream would keep it,
but not every server and account has that, and two sides of which only one has it would wait for each other in vain. So
each side keeps what it has said. It says hello when it comes, when its connection is back, and every now and then; a
hello tells how much has been heard of the other side, and so does its answer; who learns that something was missed says
all of it again. What comes twice is given once.

Where nobody listens to a hello, the server says so at once ("no responders"). So a free room, and a peer that is gone,
are known without waiting; and who has a peer that is still there tells a third that the room is crowded. Of three who
come in the same moment all may get in: whether somebody is the peer is for those to find out who use this.

Needs the extra `nats`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import ssl
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from simopen.errors import RoomCrowded, SignallingError
from simopen.signalling.base import BODY_MOST, Message, Mood, Welcome, check_body, check_room, visiting
from simopen.signalling.nats_connection import Heed, NatsConnection
from simopen.signalling.nats_hello import Hello, Word, read_hello

SUBJECTS = "simopen_meet"
"""All subjects begin with it."""
HEARD_MOST = 1_000
CLOSING_S = 2.0
"""For leaving the room."""
LOOK_FIRST_S, LOOK_S = 0.25, 5.0
"""When a side in its room says hello again, and how often at last: what was lost with a node is said again then."""
_ANSWERS_S = 0.1, 0.4, 1.5, 2.0
"""How long to wait for an answer, each time it is asked for: who listens and never answers stands still. Short at
first, as that somebody has just gone takes some ms to spread, and what is asked meanwhile is lost."""
_SPREAD_S = 0.05, 0.2
"""How long it may take until the nodes know who listens at the others: pauses before it is asked again."""
_TRIES, _DIGITS_MOST = 20, 9
"""A room's number is as short as it can be: each try has a digit more."""


def nats_rooms(
    servers: Sequence[str],
    where: str,
    *,
    tls: ssl.SSLContext | None = None,
    credentials: str | None = None,
    proxied: bool = True,
) -> AbstractAsyncContextManager[NatsRooms]:
    """A Signaller at NATS, connected. Leaving leaves the room too.

    Args:
        servers: a URL each, with the login: nats, tls, ws or wss.
        where: how errors name them all, without a password.
        tls: None: the usual authorities.
        credentials: a file of NATS credentials.
        proxied: `ws` and `wss` through the proxy that the environment names, if any.

    Raises:
        SignallingError: no node answers, or lets this in.
    """
    return visiting(NatsRooms(servers, where, tls=tls, credentials=credentials, proxied=proxied))


class NatsRooms:
    """Made by `nats_rooms`; see `base.Signaller` for what its methods do."""

    def __init__(
        self, servers: Sequence[str], where: str, *, tls: ssl.SSLContext | None, credentials: str | None, proxied: bool
    ) -> None:
        self.welcome = Welcome()
        self._servers, self._where, self._tls, self._credentials = servers, where, tls, credentials
        self._proxied = proxied
        self._side = secrets.token_hex(8)
        self._news, self._look = asyncio.Event(), asyncio.Event()
        needs = f"{SUBJECTS}.> and _INBOX.>"
        self._nats = NatsConnection(where, needs, failed=self._news.set, returned=self._look.set)
        self._room: str | None = None
        self._has_made = False
        self._is_in = False
        self._peer: str | None = None
        self._met = asyncio.Event()
        self._heard_there = 0
        self._said: dict[str, bytes] = {}
        self._heard: set[tuple[str, str]] = set()
        self._counts: Counter[str] = Counter()
        self._inbox: deque[Message] = deque()
        self._listening: list[Subscription] = []
        self._looking: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Connect."""
        await self._nats.open(self._servers, tls=self._tls, credentials=self._credentials, proxied=self._proxied)

    async def allocate(self) -> str:
        """A free room's number."""
        self._nats.check()
        self._require_outside()
        for tries in range(_TRIES):
            self._room = room = str(random.randrange(1, 10 ** min(1 + tries, _DIGITS_MOST)))
            with contextlib.suppress(TimeoutError):  # whoever is there and silent is there, too
                if await self._is_free(room):
                    self._has_made = True
                    await self._listen_for_all()
                    return room
            await self._go_out()
        raise SignallingError(f"{self._where}: no room is free: try again later")

    async def _is_free(self, room: str) -> bool:
        """Whether nobody has the number, nor tries it in the same moment: then it is neither's. Listens afterwards."""
        if await self._ask(f"{room}.try", Word.TRIES) is not None:
            return False
        await self._listen("try", self._answer, group="any")
        if self._nats.has_nodes:
            await asyncio.sleep(_SPREAD_S[0])
        return await self._ask(f"{room}.try", Word.TRIES) is None

    async def enter(self, room: str) -> None:
        """Go into the room."""
        self._nats.check()
        check_room(room)
        if self._is_in or room != self._room:
            self._require_outside()
            self._room = room
            await self._listen("try", self._answer, group="any")
            await self._listen_for_all()
        if not self._has_made:
            await self._say_all()  # with the hello, and not a round trip later: in a crowded room nobody heeds it
        if await self._is_crowded(room):
            await self._go_out()
            raise RoomCrowded(
                f"room {room} at {self._where} has two in it already: the code was used, or somebody is guessing: "
                "make a new code"
            )
        self._is_in = True
        self._looking = asyncio.create_task(self._look_again(room))
        if self._heard_there < len(self._said):
            await self._say_all()

    async def _is_crowded(self, room: str) -> bool:
        """Also says hello to who is there."""
        pauses_s = iter(_SPREAD_S if self._nats.has_nodes and not self._has_made else ())
        with contextlib.suppress(TimeoutError):
            while (answer := await self._hello(room)) is None and (pause_s := next(pauses_s, None)) is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._met.wait()
            self._heard_there = 0 if answer is None else answer.heard
            return answer is not None and answer.word is Word.CROWDED
        return False

    def _require_outside(self) -> None:
        if self._room is not None:
            raise SignallingError("one meeting has one room, and this one is in it: connect again for another")

    async def send(self, phase: str, body: bytes) -> None:
        """Say it to who is there, and keep it for who comes."""
        self._nats.check()
        if not 0 < len(phase) <= 256 or phase in self._said:
            raise ValueError(f"each message has a phase of its own: {phase!r:.60}")
        self._said[phase] = check_body(body)
        if self._is_in:
            await self._say(phase, body)

    async def receive(self) -> Message:
        """The peer's next message."""
        while not self._inbox:
            self._nats.check()
            self._news.clear()
            await self._news.wait()
        return self._inbox.popleft()

    async def close(self, mood: Mood) -> None:
        """Leave the room, once a peer that is there has heard all, as long as it answers in time."""
        if self._nats.failure is not None:
            return
        try:
            with contextlib.suppress(TimeoutError, SignallingError):
                async with asyncio.timeout(CLOSING_S):
                    await self._until_heard()
        finally:
            self._nats.fail(SignallingError("this meeting has left its room: connect again for another"))
            await self.end()

    async def end(self) -> None:
        """Also where this is cancelled once more: the client would stop closing half-way."""
        if self._looking is not None:
            self._looking.cancel()
        try:
            await self._nats.close()
        finally:
            if self._looking is not None:
                await asyncio.wait({self._looking})

    # What is said.

    async def _ask(self, to: str, word: Word, side: str | None = None) -> Hello | None:
        """The first answer to a hello; None: nobody listens there. `side`: the one that it is for, if for one.

        Raises:
            TimeoutError: somebody listens, and does not answer.
            SignallingError: there is no connection any more.
        """
        hello = Hello(self._side, self._counts[side or ""], word).encoded()
        answer = await self._nats.request(f"{SUBJECTS}.{to}", hello, _ANSWERS_S)
        if answer is None:
            return None
        if (said := read_hello(answer)) is None:
            raise TimeoutError
        return said

    async def _hello(self, room: str) -> Hello | None:
        """Say hello, and learn by the answer who is there, and what was missed."""
        said = len(self._said)  # what is said from here on is still on its way
        answer = await self._ask(f"{room}.hello", Word.MAKES if self._has_made else Word.COMES, self._peer)
        if answer is not None and answer.word is Word.WELCOME:
            self._meets(answer.side)
            await self._say_what_was_missed(answer, said)
        return answer

    async def _say(self, phase: str, body: bytes) -> None:
        subject = f"{SUBJECTS}.{self._room}.said.{self._side}.{phase.encode().hex()}"
        await self._nats.publish(subject, body)  # what is lost, the next hello finds missing

    async def _say_all(self) -> None:
        for phase, body in tuple(self._said.items()):
            await self._say(phase, body)

    async def _say_what_was_missed(self, hello: Hello, said: int) -> None:
        if self._is_in and hello.heard < said:
            await self._say_all()

    async def _look_again(self, room: str) -> None:
        """Say hello again, soon at first: that somebody listens spreads from node to node."""
        pause_s = LOOK_FIRST_S
        while self._nats.failure is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._look.wait()
            pause_s = LOOK_FIRST_S if self._look.is_set() else min(LOOK_S, 2 * pause_s)
            self._look.clear()
            with contextlib.suppress(SignallingError, TimeoutError):
                await self._hello(room)

    async def _until_heard(self) -> None:
        while self._is_in and self._peer is not None:
            answer = await self._ask(f"{self._room}.hello.{self._peer}", Word.LEAVES, self._peer)
            if answer is None or answer.heard >= len(self._said):
                return
            await self._say_all()

    # What is heard.

    async def _listen_for_all(self) -> None:
        await self._listen("said.*.*", self._hear)
        await self._listen("hello", self._answer)
        await self._listen(f"hello.{self._side}", self._answer)

    async def _listen(self, what: str, heed: Heed, group: str = "") -> None:
        self._listening.append(await self._nats.subscribe(f"{SUBJECTS}.{self._room}.{what}", heed, group=group))

    async def _go_out(self) -> None:
        self._room, self._has_made = None, False
        listening, self._listening = self._listening, []
        for each in listening:
            await self._nats.unsubscribe(each)

    async def _hear(self, message: Msg) -> None:
        side, phase = message.subject.split(".")[-2:]
        if side == self._side or (side, phase) in self._heard or len(message.data) > BODY_MOST:
            return
        if self._peer not in (None, side):
            return  # a third's, or a successor's, who says it again once the hello has told that the peer is gone
        try:
            said = Message(bytes.fromhex(phase).decode(), message.data)
        except ValueError:
            return  # of somebody else's making
        if self._peer is None:
            self._meets(side)
        self._heard.add((side, phase))
        self._counts[side] += 1
        if len(self._heard) > HEARD_MOST:
            self._nats.fail(
                SignallingError(f"far more came through {self._where} than a meeting needs: make a new code")
            )
            return
        self._inbox.append(said)
        self._news.set()

    def _meets(self, side: str) -> None:
        self._peer = side
        self._met.set()

    async def _answer(self, message: Msg) -> None:
        hello = read_hello(message.data)
        if hello is None or not message.reply:
            return
        comes = hello.word in (Word.COMES, Word.MAKES)
        is_crowded = hello.word is Word.TRIES or (comes and await self._is_crowded_for(hello))
        answer = Hello(self._side, self._counts[hello.side], Word.CROWDED if is_crowded else Word.WELCOME)
        await self._nats.publish(message.reply, answer.encoded())
        if comes and not is_crowded:
            self._meets(hello.side)
            await self._say_what_was_missed(hello, len(self._said))
        elif hello.word is Word.LEAVES and hello.side == self._peer:
            self._peer = None

    async def _is_crowded_for(self, hello: Hello) -> bool:
        """Whether there is another peer, or both have made this number: then their codes are not the same."""
        if hello.word is Word.MAKES and self._has_made:
            return True
        if self._peer in (None, hello.side):
            return False
        try:
            return await self._ask(f"{self._room}.hello.{self._peer}", Word.LOOKS, self._peer) is not None
        except TimeoutError:
            return True
