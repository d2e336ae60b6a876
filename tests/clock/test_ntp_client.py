"""Names of servers, and the asking: real sockets on loopback, servers whose error is known."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from simopen.clock import ntp
from simopen.clock.ntp_client import DEFAULT_SERVERS, NTP_PORT, ask, parse_servers, smears
from simopen.clock.source import MACHINE
from simopen.model.server import Server
from simopen.model.times import MonoNs
from simopen.net import own_flows
from tests.fake_ntp import MISBEHAVIOURS, FakeNtp, random_bytes, short

LONG_S = 30.0


def never(answers: Sequence[ntp.Answers]) -> bool:
    return False


def three_answered(answers: Sequence[ntp.Answers]) -> bool:
    return sum(each.best is not None for each in answers) == 3


def servers(*fakes: FakeNtp) -> tuple[Server, ...]:
    return parse_servers([fake.name for fake in fakes])


async def ask_one(fake: FakeNtp, timeout_s: float = LONG_S) -> ntp.Answers:
    return (await ask(servers(fake), MACHINE, timeout_s, never))[0]


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    tasks, files = asyncio.all_tasks(), os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    yield
    assert asyncio.all_tasks() == tasks
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == len(files)


def test_none_and_twice_the_same_are_value_errors() -> None:
    with pytest.raises(ValueError, match="no time servers"):
        parse_servers([])
    with pytest.raises(ValueError, match="vote twice"):
        parse_servers(["a.example", "b.example", "A.example:123"])


def test_of_thousands_that_are_named_twice_the_first_few_are_told() -> None:
    with pytest.raises(
        ValueError, match=r"named twice, and would vote twice: 0\.example, 1\.example, .* more"
    ) as raised:
        parse_servers([f"{number % 4000}.example" for number in range(8000)])
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("host", "operator"),
    [
        ("time.google.com", "Google"),
        ("time4.google.com", "Google"),
        ("time.android.com", "Google"),
        ("216.239.35.12", "Google"),
        ("2001:4860:4806:8::", "Google"),
        ("time.aws.com", "AWS"),
        ("169.254.169.123", "AWS"),
        ("fd00:ec2::123", "AWS"),
        ("time.facebook.com", "Meta"),
        ("time5.facebook.com", "Meta"),
        ("time.google.com.example.org", None),
        ("time.cloudflare.com", None),
    ],
)
def test_who_smears_leap_seconds(host: str, operator: str | None) -> None:
    assert smears(Server(host, NTP_PORT, NTP_PORT)) == operator


def test_smearing_servers_are_not_mixed_with_others() -> None:
    assert len(parse_servers(["time1.google.com", "time2.google.com", "time.aws.com"])) == 3
    with pytest.raises(ValueError, match=r"time1\.google\.com \(Google\) smears"):
        parse_servers(["time1.google.com", "time.cloudflare.com"])


def test_the_default_servers_are_four_that_do_not_smear() -> None:
    assert len(parse_servers(DEFAULT_SERVERS)) == 4
    assert not any(map(smears, parse_servers(DEFAULT_SERVERS)))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_four_answers_of_a_near_server_are_enough(host: str) -> None:
    async with FakeNtp(2.0, host=host) as fake:
        answers = await ask_one(fake)
    assert 4 <= len(answers.samples) <= fake.queries <= 8
    assert answers.best is not None
    assert answers.best.address == fake.name


async def test_that_it_was_asked_is_noted_once_a_socket() -> None:
    async with FakeNtp() as fake:
        begun_ns = time.monotonic_ns()  # an earlier test's server may have had that port
        await ask_one(fake)
        [noted] = [
            flow
            for flow in own_flows.shared.since(MonoNs(begun_ns))
            if flow.remote.port == fake.port and not flow.is_tcp
        ]
    assert noted.remote.address == "127.0.0.1"


async def test_a_name_is_resolved_and_the_family_without_a_server_does_not_matter() -> None:
    async with FakeNtp() as fake:
        (answers,) = await ask(parse_servers([("localhost", fake.port)]), MACHINE, LONG_S, never)
    assert answers.best is not None


async def test_a_name_that_does_not_exist_is_told() -> None:
    (answers,) = await ask(parse_servers(["nowhere.invalid"]), MACHINE, LONG_S, never)
    assert "cannot be resolved" in answers.refusals[0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an unconnected socket does not hear of it")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_closed_port_is_told_at_once(host: str) -> None:
    async with FakeNtp(host=host) as fake:
        closed = fake.name
    (answers,) = await ask(parse_servers([closed]), MACHINE, LONG_S, never)
    assert answers.refusals == [f"Connection refused (at {closed})"]
    assert answers.queries == 1


async def test_an_address_that_cannot_be_reached_is_told_at_once() -> None:
    (answers,) = await ask(parse_servers(["255.255.255.255"]), MACHINE, LONG_S, never)
    assert "(at 255.255.255.255)" in answers.refusals[0]


async def test_an_answer_from_another_port_is_refused() -> None:
    async with FakeNtp(other_port=True) as fake:
        answers = await ask_one(fake, 0.3)
    assert answers.best is None
    assert answers.refusals[0].startswith("an answer came from 127.0.0.1:")
    assert answers.refusals[0].endswith(f"instead of {fake.name}")


@pytest.mark.parametrize(("garble", "words"), [(short, "47 bytes"), (random_bytes, r"mode|version|origin")])
async def test_what_is_no_answer_is_refused(garble: Callable[[bytes], bytes], words: str) -> None:
    async with FakeNtp(garble=garble) as fake:
        answers = await ask_one(fake, 0.3)
    assert answers.best is None
    assert re.search(words, " ".join(answers.refusals))


@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_a_misbehaving_server_gives_a_reason_and_no_sample(name: str) -> None:
    wrong, words = MISBEHAVIOURS[name]
    async with FakeNtp(wrong=wrong) as fake:
        answers = await ask_one(fake, 0.3)
    assert answers.best is None
    assert words in " ".join(answers.refusals)


async def test_after_a_kiss_there_is_no_further_query() -> None:
    async with FakeNtp(wrong=MISBEHAVIOURS["kiss DENY"][0]) as fake:
        await ask_one(fake)
        assert fake.queries == 1


async def test_a_rate_limit_after_the_first_answer_leaves_that_answer() -> None:
    async with FakeNtp(wrong=MISBEHAVIOURS["kiss RATE"][0], answers=1) as fake:
        answers = await ask_one(fake)
        assert fake.queries == 2
    assert len(answers.samples) == 1


async def test_a_server_that_answers_once_and_is_silent_then_is_waited_for_no_longer_than_patience() -> None:
    async with FakeNtp(answers=1) as fake:
        answers = await ask_one(fake)
        assert fake.queries < 8
    assert len(answers.samples) == 1


async def test_an_answer_seen_twice_counts_once() -> None:
    seen: list[bytes] = []

    def the_first_again(answer: bytes) -> bytes:
        seen.append(answer)
        return seen[0]

    async with FakeNtp(garble=the_first_again) as fake:
        answers = await ask_one(fake, 0.3)
    assert len(answers.samples) == 1
    assert answers.repeated
    assert not answers.reasons


async def test_a_silent_server_does_not_hold_up_those_that_agree() -> None:
    async with FakeNtp() as a, FakeNtp() as b, FakeNtp() as c, FakeNtp(answers=0) as silent:
        heard = await ask(servers(a, b, c, silent), MACHINE, 3600.0, three_answered)
    assert [bool(each.best) for each in heard] == [True, True, True, False]


async def test_the_timeout_gives_what_was_heard_until_then() -> None:
    async with FakeNtp(answers=1) as quick, FakeNtp(answers=0) as silent:
        heard = await ask(servers(quick, silent), MACHINE, 0.2, never)
    assert [len(each.samples) for each in heard] == [1, 0]


@pytest.mark.parametrize("turns", range(25))
async def test_cancelled_at_any_await_nothing_is_left_behind(turns: int) -> None:
    async with FakeNtp(up_s=0.001) as a, FakeNtp(answers=0) as b:
        with nothing_left_behind():
            task = asyncio.create_task(ask(servers(a, b), MACHINE, LONG_S, never))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_cancelled_in_the_middle_of_the_answers_nothing_is_left_behind() -> None:
    async with FakeNtp() as fake:
        with nothing_left_behind():
            task = asyncio.create_task(ask(servers(fake), MACHINE, LONG_S, never))
            await fake.queried.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_nothing_is_left_behind_by_a_check_that_ends() -> None:
    async with FakeNtp() as a, FakeNtp(answers=0) as b, FakeNtp(wrong={"leap": 3}) as c:
        with nothing_left_behind():
            await ask(servers(a, b, c), MACHINE, 0.3, never)


@pytest.mark.skipif(sys.platform != "linux", reason="SO_TIMESTAMPNS is Linux's")
async def test_the_time_that_an_answer_lies_in_the_socket_unread_does_not_count() -> None:
    def keep_the_loop_busy_after(answer: bytes) -> bytes:
        asyncio.get_running_loop().call_soon(time.sleep, 0.05)
        return answer

    async with FakeNtp(garble=keep_the_loop_busy_after) as fake:
        answers = await ask_one(fake)
    assert answers.best is not None
    assert answers.best.delay_ns < 50_000_000


@pytest.mark.parametrize("watches", [True, False])
def test_a_flood_ends_with_few_words_and_lets_the_loop_run(watches: bool) -> None:
    """Datagrams from very many ports: each is refused, and they are one reason."""

    async def main() -> tuple[ntp.Answers, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, NoReaders)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.setblocking(False)
            (asked,) = parse_servers([("127.0.0.1", server.getsockname()[1])])
            loop.closed_to_users = not watches
            asking = asyncio.create_task(ask([asked], MACHINE, LONG_S, never))
            _, client = await loop.sock_recvfrom(server, 1024)
            turns = 0
            while not asking.done():
                for _ in range(50 if watches else 2):  # without watching it takes one a turn
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                        stranger.sendto(bytes(48), client)
                turns += 1
                await asyncio.sleep(0)
            return (await asking)[0], turns

    with asyncio.Runner(loop_factory=NoReaders) as runner:
        answers, turns = runner.run(main())
    assert turns > 50
    assert len(answers.refusals) == 2
    assert re.search(
        r"from 127.0.0.1:\d+ instead of 127.0.0.1:\d+ \(and [\d,]+ like it\); more than 4,096 datagrams",
        answers.reasons,
    )
    assert len(answers.reasons) < 300


class NoReaders(asyncio.SelectorEventLoop):
    """Like Windows' default loop: from some time on, it watches no sockets for its users."""

    closed_to_users = False

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        if self.closed_to_users:
            raise NotImplementedError
        super().add_reader(fd, callback, *args)


def test_a_loop_that_cannot_watch_sockets_will_do() -> None:
    async def main() -> ntp.Answers:
        async with FakeNtp() as fake:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, NoReaders)
            loop.closed_to_users = True
            with nothing_left_behind():
                return await ask_one(fake)

    with asyncio.Runner(loop_factory=NoReaders) as runner:
        assert len(runner.run(main()).samples) >= 4


@pytest.mark.parametrize("silent", [False, True])
async def test_the_next_address_of_a_name_is_asked_where_the_first_is_dead(*, silent: bool) -> None:
    """One where nothing listens, or that says nothing."""
    async with FakeNtp(host="127.0.0.2") as living, contextlib.AsyncExitStack() as stack:
        if silent:
            dumb = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            dumb.bind(("127.0.0.1", living.port))

        def look_up(host: str, port: int, **_: object) -> list[Any]:
            return [(socket.AF_INET, 2, 17, "", (each, port)) for each in ("127.0.0.1", "127.0.0.2", "127.0.0.3")]

        asked = parse_servers([("time.example", living.port)])
        with nothing_left_behind():
            (answers,) = await ask(asked, MACHINE, LONG_S, never, look_up_by=look_up)
    assert answers.best is not None
    assert {each.address for each in answers.samples} == {living.name}


async def test_one_address_in_two_spellings_is_asked_once() -> None:
    """IPv4 in IPv6 is IPv4, which a kernel without IPv6 speaks, too."""
    async with FakeNtp() as living:

        def look_up(host: str, port: int, **_: object) -> list[Any]:
            four, six = ("127.0.0.1", port), ("::ffff:127.0.0.1", port, 0, 0)
            return [(socket.AF_INET6, 2, 17, "", six), (socket.AF_INET, 2, 17, "", four)]

        asked = parse_servers([("time.example", living.port)])
        (answers,) = await ask(asked, MACHINE, LONG_S, never, look_up_by=look_up)
        assert len(living.clients) == 1
    assert {each.address for each in answers.samples} == {living.name}


async def test_where_no_thread_can_be_had_the_name_is_not_resolved() -> None:
    def look_up(*_: object, **__: object) -> list[Any]:
        raise RuntimeError("can't start new thread")

    (answers,) = await ask(parse_servers(["time.example"]), MACHINE, LONG_S, never, look_up_by=look_up)
    assert answers.refusals == ["its name cannot be resolved (can't start new thread)"]
