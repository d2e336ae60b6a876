"""Plans, by tables, and played against the lab's NAT models on both sides."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simopen.holepunch.budget import MOST_SYNS, most_at_once
from simopen.holepunch.plan import may_be_one_host, plan
from simopen.holepunch.strategies import SPRAY_PORTS, SPRAY_SHOTS
from simopen.lab.nat import model as lab
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping, Observation, Profile
from simopen.model.shot import Plan
from simopen.model.times import MonoNs
from simopen.model.wording import shortened
from tests.meeting import Meeting, meet
from tests.modelled import Model

OURS, THEIRS = Endpoint("192.168.1.10", 1314), Endpoint("10.0.0.7", 2718)
A, B = Endpoint("203.0.113.1", 4000), Endpoint("198.51.100.1", 5000)
ADM, APDM = Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT
SEQUENTIAL, RANDOM = Allocation.SEQUENTIAL, Allocation.RANDOM


def profile(host: Endpoint, mapped: Endpoint | None, **fields: object) -> Profile:
    """One of an endpoint-independent NAT, as `discover` makes it."""
    known = {"mapping": Mapping.ENDPOINT_INDEPENDENT, "allocation": Allocation.PRESERVING, "confidence": 1.0}
    return replace(Profile(hosts=(host,), mapped=mapped), **{**known, **fields})  # type: ignore[arg-type]


def both(ours: Profile, theirs: Profile, *, spray: bool = False, by_hosts: bool = False) -> tuple[Plan, Plan]:
    asked = partial(plan, now_ns=0, spray=spray, by_hosts=by_hosts)
    return asked(ours, theirs), asked(theirs, ours)


def played(left: lab.Nat, right: lab.Nat, runs: int = 5, *, spray: bool = False, wait_ns: int = 0) -> list[Meeting]:
    return [
        meet(Model([left], 2 * seed + 1), Model([right], 2 * seed + 2, site=1), spray=spray, wait_ns=wait_ns)
        for seed in range(runs)
    ]


def test_two_known_endpoints_take_one_shot_each() -> None:
    ours, theirs = both(profile(OURS, A), profile(THEIRS, B))
    assert [(shot.local_port, shot.remote) for shot in ours.shots] == [(OURS.port, B)]
    assert [(shot.local_port, shot.remote) for shot in theirs.shots] == [(THEIRS.port, A)]
    assert ours.chooses is theirs.chooses is None
    assert not ours.sprays


def test_of_two_that_may_see_several_streams_one_chooses() -> None:
    keeping = {"mapping": Mapping.ADDRESS_AND_PORT_DEPENDENT}
    ours, theirs = both(profile(OURS, A, **keeping), profile(THEIRS, B, **keeping))
    assert {ours.chooses, theirs.chooses} == {True, False}


def test_where_a_new_mapping_keeps_the_number_ports_without_one_are_used() -> None:
    moving = profile(
        OURS, A, mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.CONSTANT_DELTA, delta=10
    )
    ours, theirs = both(moving, profile(THEIRS, B))
    assert OURS.port not in {shot.local_port for shot in ours.shots}
    assert [Endpoint(A.address, shot.local_port + 10) for shot in ours.shots] == [shot.remote for shot in theirs.shots]


def test_behind_one_nat_their_own_addresses_come_first() -> None:
    ours, theirs = both(profile(OURS, A), profile(THEIRS, A._replace(port=4001)))
    assert [shot.remote for shot in ours.shots] == [THEIRS, A._replace(port=4001)]
    assert {ours.chooses, theirs.chooses} == {True, False}


def test_behind_one_nat_that_does_not_hairpin_only_their_own_addresses() -> None:
    ours, _ = both(profile(OURS, A, hairpinning=False), profile(THEIRS, A._replace(port=4001)))
    assert [shot.remote for shot in ours.shots] == [THEIRS]


def test_ipv6_comes_first_where_both_have_it() -> None:
    six, other = Endpoint("2001:db8::1", 1314), Endpoint("2001:db8::2", 2718)
    ours, _ = both(profile(OURS, A, hosts=(OURS, six)), profile(THEIRS, B, hosts=(THEIRS, other)))
    assert [shot.remote for shot in ours.shots] == [other, B]
    alone, _ = both(profile(OURS, A), profile(THEIRS, B, hosts=(THEIRS, other)))
    assert [shot.remote for shot in alone.shots] == [B]


def test_a_side_that_has_ipv6_alone_is_met_over_it() -> None:
    """Nothing translates it, so its public endpoint is one of its own; across, there would be no way."""
    six, other = Endpoint("2a0f:3::1", 1314), Endpoint("2a0f:4::2", 2718)
    ours, theirs = both(profile(six, six, mapping=Mapping.NONE), profile(THEIRS, B, hosts=(THEIRS, other)))
    assert [shot.remote for shot in ours.shots] == [other]
    assert [shot.remote for shot in theirs.shots] == [six]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "fe80::1%2", "::1", "169.254.1.1", "224.0.0.1", "ff02::1", "255.255.255.255", "0.0.0.0", "::"],
)
def test_an_address_that_means_another_host_here_or_many_is_not_fired_at(address: str) -> None:
    theirs = profile(THEIRS, A._replace(port=4001), hosts=(THEIRS, Endpoint(address, THEIRS.port)))
    ours, _ = both(profile(OURS, A), theirs)
    assert address not in {shot.remote.address for shot in ours.shots}


NEVER = [
    "127.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "169.254.1.1",
    "fe80::1",
    "224.0.0.1",
    "0.0.0.0",
    "240.0.0.1",
    "64:ff9b::7f00:1",
]


@pytest.mark.parametrize("spray", [False, True])
@pytest.mark.parametrize("address", NEVER)
def test_a_public_endpoint_that_no_peer_has_leaves_no_way(address: str, *, spray: bool) -> None:
    victim = Endpoint(address, 22)
    for mapping in ({}, RANDOM_NAT):
        for theirs in (profile(THEIRS, victim, **mapping), profile(THEIRS, victim, hosts=(victim,), **mapping)):
            for mine in (profile(OURS, A), profile(OURS, victim._replace(port=7))):
                assert not any(
                    shot.remote.address == address for shot in plan(mine, theirs, now_ns=0, spray=spray).shots
                )


@pytest.mark.parametrize("address", NEVER)
def test_an_own_address_that_no_peer_has_is_left_out_with_a_note(address: str) -> None:
    theirs = profile(THEIRS, B, hosts=(THEIRS, Endpoint(address, 22)))
    found, its = both(profile(OURS, A), theirs)
    assert [shot.remote for shot in found.shots] == [B]
    assert [note.endswith(("there", "has", "a multicast address")) for note in found.notes] == [True]
    assert "left out: the peer's profile names" in found.notes[0]
    assert its.notes == ()


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.1", "100.64.0.9", "fd00::1"])
def test_a_private_public_endpoint_is_the_peers_only_from_within(address: str) -> None:
    """Where the servers saw this side at a private address, too, or at that very one."""
    there = Endpoint(address, 4000)
    for mine in (A, Endpoint("2001:db8::5", 5)):
        assert not plan(profile(OURS, mine), profile(THEIRS, there), now_ns=0).shots
    inside = Endpoint("fd00::77" if ":" in address else "172.16.0.5", 7)
    assert [shot.remote for shot in plan(profile(OURS, inside), profile(THEIRS, there), now_ns=0).shots] == [there]


def test_what_is_not_the_peers_is_refused_alike_on_both_sides() -> None:
    private = profile(THEIRS, Endpoint("10.1.2.3", 4000))
    ours, theirs = both(profile(OURS, A), private)
    assert not ours.shots
    assert not theirs.shots
    assert "the peer's public endpoint is said to be 10.1.2.3:4000: that is a private address, which" in ours.why
    assert "this side's public endpoint" in theirs.why


def test_a_profile_may_write_an_address_in_another_way() -> None:
    theirs = profile(THEIRS, Endpoint("::ffff:198.51.100.1", 5000))
    assert [shot.remote for shot in plan(profile(OURS, A), theirs, now_ns=0).shots] == [B]


def test_an_address_that_is_named_twice_is_fired_at_once() -> None:
    """One local port has one stream to each endpoint."""
    theirs = profile(THEIRS, A._replace(port=4001), hosts=(THEIRS, THEIRS))
    ours, _ = both(profile(OURS, A), theirs)
    assert [shot.remote for shot in ours.shots] == [THEIRS, A._replace(port=4001)]


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (profile(THEIRS, None), "nobody saw the peer's public endpoint"),
        (profile(THEIRS, Endpoint("2001:db8::2", 1)), "over IPv4 only"),
    ],
)
def test_what_is_missing_is_said(theirs: Profile, why: str) -> None:
    found, _ = both(profile(OURS, A), theirs)
    assert not found.shots
    assert why in found.why


def test_two_whom_no_server_saw_are_tried_at_their_own_addresses() -> None:
    ours, theirs = both(profile(OURS, None), profile(THEIRS, None), by_hosts=True)
    assert [shot.remote for shot in ours.shots] == [THEIRS]
    assert [shot.remote for shot in theirs.shots] == [OURS]
    assert "no STUN server saw both" in ours.why


def test_who_was_seen_is_met_at_the_public_endpoint_by_one_whom_nobody_saw() -> None:
    reachable = Endpoint("198.51.100.7", 2718)
    ours, theirs = both(profile(OURS, A), profile(reachable, None), by_hosts=True)
    assert [shot.remote for shot in ours.shots] == [reachable]
    assert [shot.remote for shot in theirs.shots] == [A, OURS]


def test_two_of_which_one_was_not_seen_may_be_on_one_host_where_their_addresses_are_the_same() -> None:
    docker, beside = Endpoint("172.17.0.1", OURS.port), Endpoint(OURS.address, 9)
    unseen, bound = profile(OURS, None, hosts=(OURS, docker)), profile(beside, None)
    assert may_be_one_host(unseen, bound)
    assert may_be_one_host(bound, unseen)
    assert may_be_one_host(profile(OURS, A), bound)
    assert not may_be_one_host(profile(OURS, A), profile(beside, B))
    assert not may_be_one_host(unseen, profile(THEIRS, None, hosts=(THEIRS, docker)))


@pytest.mark.parametrize(
    "fields",
    [
        *({"hosts": (Endpoint(*end),)} for end in (("1.2.3.4", 0), ("1.2.3.4", 70_000), ("", 9), ("a" * 5_000, 9))),
        *({"mapped": Endpoint(*end)} for end in (("1.2.3.4", -1), (None, 9), (5, 9), ("1.2.3.4", "9"))),
        *({"confidence": value} for value in (2, -1, 10**400, float("nan"), None)),
        *({"observations": (Observation(A, A, B, MonoNs(at_ns), 0),)} for at_ns in (2**63, -(2**63), 10**400)),
        *({"observations": (Observation(A, A, B, 0, own),)} for own in (-1, 2**16, 2**63, 1.5, None)),  # type: ignore[arg-type]
        *({"observations": (seen,)} for seen in (5, Observation(None, A, B, 0), Observation(A, A, "b", 0))),  # type: ignore[arg-type]
        *({"mapped": odd} for odd in (5, "1.2.3.4", b"a")),
        *({"hosts": (odd,)} for odd in (5, None, "1.2.3.4:5")),
        *({"hosts": odd} for odd in (5, True, "1.2.3.4")),
        *({"observations": odd} for odd in (5, True, "", 10**400)),
        *({"confidence": odd} for odd in (True, "")),
    ],
    ids=lambda fields: shortened(str(fields), 60),
)
def test_a_profile_of_no_sense_is_a_bad_argument(fields: dict[str, object]) -> None:
    odd = replace(profile(THEIRS, B), **fields)  # type: ignore[arg-type]
    for ours, theirs in ((profile(OURS, A), odd), (odd, profile(OURS, A))):
        with pytest.raises((TypeError, ValueError), match=r"^.{,200}$"):
            plan(ours, theirs, now_ns=0)


@pytest.mark.parametrize("now_ns", [10**400, -(10**400), 2**63, float("nan"), float("inf"), True, 1.5, "", None])
def test_a_time_of_no_clock_is_a_bad_argument(now_ns: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="now_ns must be"):
        plan(profile(OURS, A), profile(THEIRS, B), now_ns=now_ns)


def test_a_profile_without_hosts_is_refused() -> None:
    with pytest.raises(ValueError, match="which port"):
        plan(replace(profile(OURS, A), hosts=()), profile(THEIRS, B), now_ns=0)


RANDOM_NAT = {"mapping": Mapping.ADDRESS_AND_PORT_DEPENDENT, "allocation": Allocation.RANDOM}


@pytest.mark.parametrize("spray", [False, True])
def test_two_random_nats_are_refused(*, spray: bool) -> None:
    for found in both(profile(OURS, A, **RANDOM_NAT), profile(THEIRS, B, **RANDOM_NAT), spray=spray):
        assert not found.shots
        assert "2^32" in found.why
        assert found.chance == 0


def test_the_spray_needs_leave_and_comes_after_the_listener() -> None:
    ours, theirs = both(profile(OURS, A, **RANDOM_NAT), profile(THEIRS, B))
    assert (len(ours.shots), len(theirs.shots), ours.sprays) == (1, 1, True)
    ours, theirs = both(profile(OURS, A, **RANDOM_NAT), profile(THEIRS, B), spray=True)
    assert (len(ours.shots), len(theirs.shots)) == (1 + SPRAY_PORTS, 1 + SPRAY_SHOTS)
    assert len({shot.local_port for shot in theirs.shots}) == 1
    assert most_at_once(theirs.shots) < 1000


def test_what_awaits_the_spray_is_there_until_its_last_shot() -> None:
    ours, theirs = both(profile(OURS, A, **RANDOM_NAT), profile(THEIRS, B), spray=True)
    last_ns = max(shot.after_ns for shot in theirs.shots)
    assert min(shot.after_ns + (shot.lasts_ns or 0) for shot in ours.shots[1:]) > last_ns


def test_a_filter_known_to_ask_for_the_port_leaves_only_the_spray() -> None:
    strict = profile(THEIRS, B, filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT)
    ours, _ = both(profile(OURS, A, **RANDOM_NAT), strict)
    assert not ours.shots
    assert "allow the spray" in ours.why
    ours, _ = both(profile(OURS, A, **RANDOM_NAT), strict, spray=True)
    assert len(ours.shots) == SPRAY_PORTS


def test_no_shot_comes_twice() -> None:
    sides = [profile(OURS, A), profile(OURS, A, **RANDOM_NAT), profile(OURS, A, mapping=Mapping.ADDRESS_DEPENDENT)]
    for ours, theirs in product(sides, [replace(each, hosts=(THEIRS,), mapped=B) for each in sides]):
        for found in both(ours, theirs, spray=True):
            keys = [(shot.local_port, shot.remote) for shot in found.shots]
            assert len(keys) == len(set(keys))


def busy_row(host: Endpoint, at: Endpoint, **fields: object) -> Profile:
    """Others make hundreds of mappings a second."""
    seen = [
        Observation(host, B, at._replace(port=at.port + n * 40 + n * n * 7 % 300), MonoNs(n * 10**8)) for n in range(14)
    ]
    row = {"mapping": Mapping.ADDRESS_AND_PORT_DEPENDENT, "allocation": Allocation.SEQUENTIAL}
    return profile(host, at, **{**row, "observations": tuple(seen), **fields})


@pytest.mark.parametrize("wait_ns", [0, 2_000_000_000, 10_000_000_000, 3600_000_000_000])
@pytest.mark.parametrize("spray", [False, True])
@pytest.mark.parametrize("mapping", [Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT])
def test_a_row_that_runs_away_is_planned_for_alike_on_both_sides(
    mapping: Mapping, wait_ns: int, *, spray: bool
) -> None:
    """Once nothing of it can be foreseen, it is as good as random."""
    row, none = busy_row(THEIRS, A, mapping=mapping), busy_row(THEIRS, A, observations=())
    known, keeping, lost = (profile(OURS, B, **fields) for fields in ({}, {"mapping": mapping}, RANDOM_NAT))
    for ours in (known, keeping, lost, busy_row(OURS, B)):
        for theirs in (row, none):
            found = plan(ours, theirs, now_ns=wait_ns, spray=spray), plan(theirs, ours, now_ns=wait_ns, spray=spray)
            assert bool(found[0].shots) is bool(found[1].shots)
            assert found[0].why == found[1].why
    sprayed = plan(known, row, now_ns=3600_000_000_000, spray=True)
    assert len(sprayed.shots) == 1 + SPRAY_SHOTS


LOCAL_PORTS = st.sampled_from([OURS.port, OURS.port + 2, OURS.port + 3])
PAUSES_NS = st.sampled_from([0, 10**5, 10**6, 10**8, 10**9, 3 * 10**9, 3600 * 10**9])
GAPS = st.one_of(st.integers(-9, 9), st.integers(-1100, 1100), st.sampled_from([8, 16, 24, 999]), st.integers(0, 2**16))


@st.composite
def rows(draw: st.DrawFn, host: Endpoint, at: Endpoint) -> Profile:
    """A profile whose ports follow each other in any way, or in none: whoever writes a ticket writes what he likes."""
    port, at_ns, seen = draw(st.integers(1, 65_535)), 0, []
    for gap, pause_ns, local, own in draw(
        st.lists(st.tuples(GAPS, PAUSES_NS, LOCAL_PORTS, st.sampled_from([0, 0, 1, 700])), min_size=1, max_size=40)
    ):
        port, at_ns = (port + gap) % 65_535 + 1, at_ns + pause_ns
        seen.append(Observation(host._replace(port=local), B, at._replace(port=port), MonoNs(at_ns), own))
    mapping = draw(st.sampled_from([Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT]))
    step = draw(st.sampled_from([None, 1, 2, 8, -1]))
    row = {"mapping": mapping, "allocation": Allocation.SEQUENTIAL, "step": step, "observations": tuple(seen)}
    return profile(host, seen[-1].mapped, **row)


@settings(max_examples=30)
@given(rows(OURS, A), rows(THEIRS, B), PAUSES_NS, st.booleans())
def test_whatever_rows_two_sides_tell_of_is_planned_for_alike_on_both(
    ours: Profile, theirs: Profile, wait_ns: int, spray: bool
) -> None:
    now_ns = max(each.observations[-1].at_ns for each in (ours, theirs)) + wait_ns
    found, its = plan(ours, theirs, now_ns=now_ns, spray=spray), plan(theirs, ours, now_ns=now_ns, spray=spray)
    assert (found.why, found.sprays, bool(found.shots)) == (its.why, its.sprays, bool(its.shots))
    assert found.chance == pytest.approx(its.chance)
    assert None in (found.chooses, its.chooses) or found.chooses is not its.chooses


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of Python it takes, which no other program on the machine can change."""
    lines, before = 0, sys.gettrace()

    def counted(_frame: object, event: str, _argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return counted

    sys.settrace(counted)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


HOSTILE: dict[str, tuple[list[int], int]] = {
    "jumps": (
        [20_000, -9_000, 31_000, 5_000, -17_000, 9_999, 28_000, -3_000, 12_000, -30_000, 7_777, 1_234, -21_000],
        10**9,
    ),
    "a busy row": ([7, 30, 2, 11, 54, 3, 1, 19, 8, 1, 40, 5, 12], 3600 * 10**9),
    "a row of others": ([240, 480, 96, 960, 48, 888, 720, 312, 24, 600, 504, 144, 984], 3600 * 10**9),
    "steps of any size": ([1, 2, -1, 8, 4, 3, -1, 1, 16, 2, 8, 1, -2], 3600 * 10**9),
    "nothing": ([], 10**9),
}


@pytest.mark.parametrize(("gaps", "pause_ns"), HOSTILE.values(), ids=HOSTILE)
def test_no_two_rows_take_long_to_plan(gaps: list[int], pause_ns: int) -> None:
    """Whoever writes a ticket writes what he likes, and the other's plan must not take seconds."""
    sides = []
    for host, at in ((OURS, A), (THEIRS, B)):
        ports = accumulate((*gaps, *gaps * 20), initial=32_000)
        seen = [
            Observation(host, B, at._replace(port=port % 60_000 + 1_024), MonoNs(pause_ns * n))
            for n, port in enumerate(ports)
        ]
        row = {"mapping": Mapping.ADDRESS_AND_PORT_DEPENDENT, "allocation": Allocation.SEQUENTIAL}
        sides.append(profile(host, seen[-1].mapped, observations=tuple(seen), **row))
    now_ns = sides[0].observations[-1].at_ns + pause_ns
    assert lines_run(lambda: plan(*sides, now_ns=now_ns)) < 600_000


def test_where_many_ports_are_as_good_a_volley_aims_at_the_middle_of_them() -> None:
    """In the order of the row, round the end of the range of ports."""
    seen = tuple(Observation(THEIRS, A, B._replace(port=65_530 + n), MonoNs(n * 10**6)) for n in range(4))
    row = {"mapping": Mapping.ADDRESS_AND_PORT_DEPENDENT, "allocation": Allocation.SEQUENTIAL, "observations": seen}
    theirs = profile(THEIRS, seen[-1].mapped, **row)
    keeping = profile(OURS, A, mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT)
    found = plan(keeping, theirs, now_ns=4 * 10**6)
    assert found.shots[0].remote.port in {1025, 1026}


HOME = lab.Nat()
PAIRS: dict[str, tuple[lab.Nat, lab.Nat]] = {
    "known × known": (HOME, lab.Nat(allocation=RANDOM)),
    "keeping × known": (lab.Nat(APDM), HOME),
    "keeping × keeping": (lab.Nat(APDM), lab.Nat(ADM)),
    "walking × known": (lab.Nat(APDM, allocation=SEQUENTIAL, step=3, others=0.3), HOME),
    "walking × keeping": (lab.Nat(APDM, allocation=SEQUENTIAL, others=0.1), lab.Nat(APDM)),
    "walking × walking": (lab.Nat(APDM, allocation=SEQUENTIAL), lab.Nat(APDM, allocation=SEQUENTIAL, step=2)),
    "walking × walking, by address": (lab.Nat(ADM, allocation=SEQUENTIAL), lab.Nat(ADM, allocation=SEQUENTIAL)),
    "random × lenient": (
        lab.Nat(APDM, allocation=RANDOM),
        lab.Nat(filtering=Filtering.ADDRESS_DEPENDENT),
    ),
}


@pytest.mark.parametrize(("left", "right"), PAIRS.values(), ids=PAIRS)
def test_what_a_plan_meets_at_once_and_with_few_syns(left: lab.Nat, right: lab.Nat) -> None:
    for found in played(left, right):
        assert found.met_ns is not None
        assert found.met_ns < 1_000_000_000
        assert max(found.syns) <= MOST_SYNS


def test_two_busy_sequences_meet_within_the_rounds() -> None:
    busy = lab.Nat(APDM, allocation=SEQUENTIAL, others=0.1)
    assert all(each.met_ns is not None for each in played(busy, busy, runs=8))


@pytest.mark.parametrize("trier", [HOME, lab.Nat(ADM, allocation=SEQUENTIAL)])
def test_the_spray_meets_and_keeps_its_pace(trier: lab.Nat) -> None:
    for found in played(lab.Nat(APDM, allocation=RANDOM), trier, spray=True):
        assert found.met_ns is not None
        assert found.most_in_a_second <= 500


def test_what_others_did_meanwhile_is_foreseen() -> None:
    """Three seconds at one mapping a second."""
    for seed in range(4):
        left = Model([lab.Nat(APDM, allocation=SEQUENTIAL)], 2 * seed + 1, others_per_s=1.0)
        found = meet(left, Model([HOME], 2 * seed + 2, site=1), wait_ns=3_000_000_000)
        assert found.met_ns is not None
