from __future__ import annotations

from dataclasses import replace

import pytest

from simopen.holepunch.prospects import prospects
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping, Observation, Profile
from simopen.model.times import MonoNs

HOST, MAPPED = Endpoint("192.168.1.2", 1314), Endpoint("198.51.100.77", 2000)
KNOWN = Profile(Mapping.ENDPOINT_INDEPENDENT, Allocation.PRESERVING, mapped=MAPPED, hosts=(HOST,), confidence=1.0)
RANDOM = replace(KNOWN, mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
IN_A_ROW = replace(
    RANDOM,
    allocation=Allocation.SEQUENTIAL,
    observations=tuple(
        Observation(HOST, Endpoint("203.0.113.9", port), MAPPED._replace(port=port), MonoNs(7))
        for port in range(1989, 2001)
    ),
)
SIX = replace(KNOWN, mapped=Endpoint("2001:db8::7", 1314), hosts=(Endpoint("2001:db8::7", 1314),))


@pytest.mark.parametrize(
    ("profile", "verdicts"),
    [
        (KNOWN, ["yes", "yes", "perhaps; else with --spray"]),
        (replace(KNOWN, mapping=Mapping.NONE), ["yes", "yes", "perhaps; else with --spray"]),
        (replace(KNOWN, filtering=Filtering.ADDRESS_DEPENDENT), ["yes", "yes", "perhaps; else with --spray"]),
        (replace(KNOWN, filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT), ["yes", "yes", "with --spray"]),
        (IN_A_ROW, ["yes", "yes", "no"]),
        (RANDOM, ["perhaps; else with --spray", "no", "no"]),
        (SIX, ["yes", "yes", "perhaps; else with --spray"]),
    ],
)
def test_whom_a_profile_meets(profile: Profile, verdicts: list[str]) -> None:
    told = prospects(profile)
    assert [each.verdict for each in told] == verdicts
    assert all(each.peer and each.why for each in told)


def test_without_a_public_endpoint_nobody_knows() -> None:
    assert prospects(replace(KNOWN, mapped=None)) == ()
