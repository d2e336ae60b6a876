from __future__ import annotations

import asyncio
import json
import sys

import pytest

from simopen.cli.nat import as_dict, rows
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping, Observation, Pooling, Profile
from simopen.model.times import MonoNs
from tests.fake_stun import full_server
from tests.loopback import THERE, ports
from tests.loops import ONE_LOOP

__all__ = ["ports"]

MAPPED, LOCAL, SERVER = Endpoint("198.51.100.1", 2314), Endpoint("192.168.1.2", 1314), Endpoint("203.0.113.9", 3478)


@pytest.mark.parametrize("mapping", Mapping)
@pytest.mark.parametrize("allocation", Allocation)
@pytest.mark.parametrize("pooling", Pooling)
def test_every_class_has_words(mapping: Mapping, allocation: Allocation, pooling: Pooling) -> None:
    told = {what: (found, means) for what, found, means in rows(Profile(mapping, allocation, pooling=pooling))}
    assert told["mapping"][0] == mapping.value
    assert told["port allocation"][0] == allocation.value
    assert told["address pooling"][0] == pooling.value
    assert all(found and means for found, means in told.values())
    assert "public endpoint" not in told


@pytest.mark.parametrize(
    ("profile", "what", "found"),
    [
        (Profile(mapped=MAPPED), "public endpoint", "198.51.100.1:2314"),
        (Profile(hairpinning=True), "hairpinning", "yes"),
        (Profile(hairpinning=False), "hairpinning", "no"),
        (Profile(hairpinning=None), "hairpinning", "unknown"),
        (Profile(layers=0), "NATs in a row", "none"),
        (Profile(layers=1), "NATs in a row", "one"),
        (Profile(layers=2), "NATs in a row", "two or more"),
        (Profile(layers=None), "NATs in a row", "unknown"),
        (Profile(allocation=Allocation.CONSTANT_DELTA, delta=-7), "port allocation", "constant-delta, -7"),
        (
            Profile(allocation=Allocation.SEQUENTIAL, step=2, busy=0.25),
            "port allocation",
            "sequential, step 2, others take 25%",
        ),
        (Profile(confidence=0.994), "sure of the first two", "99%"),
    ],
)
def test_what_was_found_is_told(profile: Profile, what: str, found: str) -> None:
    assert found in [row[1] for row in rows(profile) if row[0] == what]


def test_a_profile_as_json_has_everything_as_plain_values() -> None:
    seen = (Observation(LOCAL, SERVER, MAPPED, MonoNs(5)),)
    profile = Profile(Mapping.ENDPOINT_INDEPENDENT, filtering=Filtering.UNKNOWN, mapped=MAPPED, observations=seen)
    told = json.loads(json.dumps(as_dict(profile)))
    assert told["mapping"] == "endpoint-independent"
    assert told["mapped"] == "198.51.100.1:2314"
    assert told["observations"] == [
        {"local": "192.168.1.2:1314", "server": "203.0.113.9:3478", "mapped": "198.51.100.1:2314"}
    ]


async def simopen_nat(*words: str) -> tuple[int | None, str, str]:
    command = [sys.executable, "-m", "simopen", "nat", *words]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, said = await process.communicate()
    return process.returncode, out.decode(), said.decode()


def behind_a_nat(seen: Endpoint, server: Endpoint) -> Endpoint:
    return Endpoint(MAPPED.address, 1024 + (seen.port * 7919) % 60_000)


@ONE_LOOP
async def test_the_command_tells_what_was_found_in_a_table(ports: tuple[int, int]) -> None:
    async with full_server((THERE, "127.0.0.3"), ports, told=behind_a_nat) as servers:
        status, out, said = await simopen_nat("--stun", str(next(iter(servers))), "--timeout", "20s")
    assert (status, said) == (0, "asking the STUN servers ...\n")
    assert "public endpoint" in out
    assert "endpoint-independent" in out
    assert f"{MAPPED.address}:" in out


@ONE_LOOP
async def test_the_command_tells_it_as_json(ports: tuple[int, int]) -> None:
    async with full_server((THERE, "127.0.0.3"), ports, told=behind_a_nat) as servers:
        server = str(next(iter(servers)))
        status, out, said = await simopen_nat("--stun", server, "--timeout", "20s", "--json")
    told = json.loads(out)
    assert (status, said) == (0, "")
    assert told["mapping"] == "endpoint-independent"
    assert server in told["servers"]


@ONE_LOOP
async def test_where_nobody_answers_the_command_says_whom_it_asked() -> None:
    status, out, said = await simopen_nat("--stun", "127.0.0.9:9", "--timeout", "5s")
    assert (status, out) == (1, "")
    assert "127.0.0.9:9" in said
    assert "Traceback" not in said


@ONE_LOOP
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--timeout", "0s"], "longer than zero"),
        (["--local-port", "70000"], "65535"),
        (["--stun", ""], "server"),
    ],
)
async def test_bad_input_is_refused_in_words(words: list[str], complaint: str) -> None:
    status, out, said = await simopen_nat(*words)
    assert (status, out) == (2, "")
    assert complaint in said
