"""The classifier and the predictions: by tables, and against the lab's NAT models."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from math import sqrt
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simopen.lab.nat import model as lab
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping, Observation, Pooling, Profile
from simopen.model.times import MonoNs
from simopen.nat.classify import classify
from simopen.nat.own_ports import taken_since
from simopen.nat.predict import Prediction, foresee, predict
from simopen.net.own_flows import Flow
from tests.modelled import HOST, OTHER_ADDRESS, OTHER_PORT, PORT, PUNCH_PORT, SERVERS, Model

A1, A1_OTHER = Endpoint(SERVERS[0], PORT), Endpoint(SERVERS[0], OTHER_PORT)
A2, A2_OTHER = Endpoint(OTHER_ADDRESS, PORT), Endpoint(OTHER_ADDRESS, OTHER_PORT)
A3 = Endpoint(SERVERS[1], PORT)
LOCAL = Endpoint(HOST, PUNCH_PORT)
PEER = Endpoint("192.0.2.77", 5000)
MS = 1_000_000


def seen(*mapped: tuple[Endpoint, int], local: Endpoint = LOCAL, start_ns: int = 0) -> list[Observation]:
    """Observations a millisecond apart: (server, mapped port at 203.0.113.1)."""
    return [
        Observation(local, server, Endpoint("203.0.113.1", port), MonoNs(start_ns + index * MS))
        for index, (server, port) in enumerate(mapped)
    ]


def ports(*pairs: tuple[int, int]) -> list[Observation]:
    """One observation each of (local port, mapped port), a millisecond apart."""
    return [
        Observation(Endpoint(HOST, local), A1, Endpoint("203.0.113.1", mapped), MonoNs(index * MS))
        for index, (local, mapped) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("observations", "mapping"),
    [
        ([], Mapping.UNKNOWN),
        (seen((A1, 7)), Mapping.UNKNOWN),
        (seen((A1, 7), (A1_OTHER, 7)), Mapping.UNKNOWN),
        (seen((A1, 7), (A1_OTHER, 8)), Mapping.ADDRESS_AND_PORT_DEPENDENT),
        (seen((A1, 7), (A2, 7)), Mapping.ENDPOINT_INDEPENDENT),
        (seen((A1, 7), (A2_OTHER, 7)), Mapping.ENDPOINT_INDEPENDENT),
        (seen((A1, 7), (A2, 8)), Mapping.UNKNOWN),
        (seen((A1, 7), (A1_OTHER, 7), (A2, 7), (A2_OTHER, 7)), Mapping.ENDPOINT_INDEPENDENT),
        (seen((A1, 7), (A1_OTHER, 7), (A2, 8), (A2_OTHER, 8)), Mapping.ADDRESS_DEPENDENT),
        (seen((A1, 7), (A1_OTHER, 8), (A2, 9), (A2_OTHER, 10)), Mapping.ADDRESS_AND_PORT_DEPENDENT),
        (seen((A1, 7), (A3, 8), (A3, 8), (A1_OTHER, 7)), Mapping.ADDRESS_DEPENDENT),
        # What no NAT does:
        (seen((A1, 7), (A1_OTHER, 7), (A2, 8), (A2_OTHER, 9)), Mapping.UNKNOWN),
        (seen((A1, 7), (A1_OTHER, 8), (A2, 7), (A2_OTHER, 7)), Mapping.UNKNOWN),
        (seen((A1, 7), (A2, 7), (A3, 8)), Mapping.UNKNOWN),
        # The mapped endpoint is the host's own:
        (seen((A1, PUNCH_PORT), (A2, PUNCH_PORT)), Mapping.ENDPOINT_INDEPENDENT),
        ([Observation(LOCAL, A1, LOCAL, MonoNs(0))], Mapping.NONE),
        ([Observation(LOCAL, A1, LOCAL, MonoNs(0)), *seen((A2, 7))], Mapping.UNKNOWN),
    ],
)  # fmt: skip
def test_the_mapping_by_the_rules_of_rfc_5780(observations: list[Observation], mapping: Mapping) -> None:
    assert classify(observations).mapping is mapping
    assert classify(reversed(observations)).mapping is mapping


def test_a_host_candidate_seen_by_the_server_is_no_nat() -> None:
    public = Endpoint("203.0.113.9", PUNCH_PORT)
    observation = Observation(Endpoint("0.0.0.0", PUNCH_PORT), A1, public, MonoNs(0))
    profile = classify([observation], hosts=[public])
    assert (profile.mapping, profile.layers, profile.hosts) == (Mapping.NONE, 0, (public,))
    assert profile.allocation is Allocation.PRESERVING
    assert predict(profile, MonoNs(0))[0].endpoint == public
    assert str(profile).startswith("no translation, ")


def test_servers_that_contradict_each_other_are_told() -> None:
    profile = classify(seen((A1, 7), (A2, 7), (A3, 8)))
    assert "contradict" in profile.notes[0]
    assert profile.mapped is not None
    assert predict(profile, MonoNs(0)) == ()


def test_a_mapping_that_changes_under_way_is_told_and_the_new_one_counts() -> None:
    profile = classify(seen((A1, 7), (A2, 7), (A3, 7), (A1, 9), (A2, 9)))
    assert profile.mapping is Mapping.ENDPOINT_INDEPENDENT
    assert profile.mapped == Endpoint("203.0.113.1", 9)
    assert profile.notes == ("the mapping changed under way, from 203.0.113.1:7 to 203.0.113.1:9",)


def test_a_mapping_that_flaps_is_unknown() -> None:
    profile = classify(seen((A1, 7), (A2, 7), (A1, 9), (A2, 7)))
    assert profile.mapping is Mapping.UNKNOWN
    assert "changed under way" in profile.notes[0]


def test_an_address_that_one_lying_server_names_is_no_pool() -> None:
    liar = Observation(LOCAL, A3, Endpoint("192.0.2.66", 7), MonoNs(9 * MS))
    assert classify([*seen((A1, 7), (A2, 7)), liar]).pooling is Pooling.UNKNOWN


def another(mapped: int) -> Observation:
    """That of another local port, before all others."""
    return Observation(Endpoint(HOST, 51111), A1, Endpoint("203.0.113.1", mapped), MonoNs(-MS))


LOCALS = (51234, 33321, 60100, 47777, 39042, 55001, 42424, 36363, 58587)


def from_each(mapped: list[int]) -> list[Observation]:
    return ports(*zip(LOCALS, mapped, strict=False))


SCATTERED = [5000, 61234, 20001, 33333, 9876, 44444, 50005, 1999, 12345]
IN_A_BLOCK = [20400, 20011, 20300, 20150, 20499, 20222, 20007, 20350, 20101]


@pytest.mark.parametrize(
    ("observations", "allocation", "step", "delta"),
    [
        (from_each([7000]), Allocation.UNKNOWN, None, None),
        (from_each(list(LOCALS[:1])), Allocation.PRESERVING, None, None),
        (from_each(list(LOCALS)), Allocation.PRESERVING, None, None),
        (from_each([*LOCALS[:5], 1234, 61000, *LOCALS[7:]]), Allocation.PRESERVING, None, None),
        (from_each([port - 1000 for port in LOCALS]), Allocation.CONSTANT_DELTA, None, -1000),
        (from_each([7000, 7001, 7002]), Allocation.SEQUENTIAL, 1, None),
        (from_each([7000, 7002, 7006, 7008, 7010]), Allocation.SEQUENTIAL, 2, None),
        (from_each([7010, 7009, 7008, 7006, 7005]), Allocation.SEQUENTIAL, -1, None),
        (from_each([65531, 65534, 1025, 1028, 1031]), Allocation.SEQUENTIAL, 3, None),
        # Another range than ours: the counter wrapped from 60999 to 32768.
        (from_each([60995, 60997, 60998, 60999, 32769, 32770, 32771]), Allocation.SEQUENTIAL, 1, None),
        # A SYN that was lost and sent again came last, though it is the third.
        (from_each([7000, 7001, 7008, 7002, 7003, 7004, 7005, 7006, 7007]), Allocation.SEQUENTIAL, 1, None),
        (from_each(SCATTERED), Allocation.RANDOM, None, None),
        (from_each(IN_A_BLOCK), Allocation.RANDOM, None, None),
        (from_each(SCATTERED[:4]), Allocation.UNKNOWN, None, None),
        # Local ports in a row: a sequence and a constant delta look alike.
        (ports(*((40000 + n, 7000 + n) for n in range(9))), Allocation.UNKNOWN, None, None),
        # One local port tells a sequence from a number that somebody else had, and then the next ones, by luck only.
        (seen((A1, 7000), (A1_OTHER, 7001), (A2, 7002), (A2_OTHER, 7003)), Allocation.UNKNOWN, None, None),
        # Numbers are kept, and where the number is taken by an earlier mapping of ours, the next one is used.
        (seen((A1, 40000), (A1_OTHER, 40001), (A2, 40002), (A2_OTHER, 40003)), Allocation.PRESERVING, None, None),
    ],
)  # fmt: skip
def test_the_allocation(
    observations: list[Observation], allocation: Allocation, step: int | None, delta: int | None
) -> None:
    profile = classify(observations)
    assert (profile.allocation, profile.step, profile.delta) == (allocation, step, delta)
    assert profile.observations == tuple(observations)


@pytest.mark.parametrize("allocation", ["sequential", "random"])
def test_parity_that_is_kept_fools_nobody(allocation: str) -> None:
    nat = lab.Nat(allocation=Allocation(allocation), parity=True)
    profile = classify(Model([nat], seed=3).discover())
    assert profile.allocation.value == allocation


@pytest.mark.parametrize("busy", [0.0, 0.3])
def test_how_busy_a_nat_is(busy: float) -> None:
    """Estimates from 8 gaps each: over 40 NATs the mean is within three standard errors of the truth."""
    nat = lab.Nat(allocation=Allocation.SEQUENTIAL, others=busy)
    found = [classify(Model([nat], seed=seed).discover()).busy for seed in range(40)]
    estimates = [each for each in found if each is not None]
    assert len(estimates) == 40
    # The estimate's bias (a few per cent) and its standard deviation (0.15 for 8 gaps at 0.3), over √40.
    assert sum(estimates) / 40 == pytest.approx(busy, abs=0.11 if busy else 1e-9)


@pytest.mark.parametrize(
    ("gateway", "layers"),
    [(None, None), ("203.0.113.1", 1), ("100.64.3.4", 2), ("192.168.0.2", 2), ("0.0.0.0", 2), ("8.8.8.8", None)],
)
def test_layers_are_told_by_the_nearest_routers_outer_address(gateway: str | None, layers: int | None) -> None:
    assert classify(seen((A1, 7), (A2, 7)), gateway=gateway).layers == layers


def test_pooling() -> None:
    assert classify(from_each(list(LOCALS))).pooling is Pooling.PAIRED
    assert classify(from_each(list(LOCALS[:7]))).pooling is Pooling.UNKNOWN
    elsewhere = Observation(Endpoint(HOST, 50001), A1, Endpoint("203.0.113.2", 50001), MonoNs(99 * MS))
    assert classify([*from_each(list(LOCALS)), elsewhere]).pooling is Pooling.ARBITRARY


def test_filtering_is_never_guessed_and_hairpinning_is_the_callers_word() -> None:
    profile = classify(seen((A1, 7), (A2, 7)), hairpinning=True)
    assert (profile.filtering, profile.hairpinning) == (Filtering.UNKNOWN, True)


def test_two_families_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="one address family"):
        classify([*seen((A1, 7)), Observation(LOCAL, A2, Endpoint("2001:db8::1", 7), MonoNs(0))])


@pytest.mark.parametrize(
    ("observations", "text"),
    [
        ([], "unknown mapping, unknown allocation, unknown filtering, unknown pooling; 0% sure"),
        (from_each([port - 7 for port in LOCALS]),
         "unknown mapping, constant-delta allocation (-7), unknown filtering, paired pooling; seen as 203.0.113.1:51227; 100% sure"),  # noqa: E501
        ([another(6998), *seen((A1, 7000), (A1_OTHER, 7002), (A2, 7004), (A2_OTHER, 7006))],
         "address-and-port-dependent mapping, sequential allocation (step 2, others take 0%), unknown filtering, unknown pooling; seen as 203.0.113.1:7006; 100% sure"),  # noqa: E501
    ],
)  # fmt: skip
def test_it_reads_well(observations: list[Observation], text: str) -> None:
    assert str(classify(observations)) == text


some_ports = st.integers(1, 65535)
some_ends = st.builds(Endpoint, st.sampled_from([HOST, "203.0.113.1", "198.51.100.1", "198.51.100.2"]), some_ports)
some_observations = st.builds(Observation, some_ends, some_ends, some_ends, st.integers(0, 10**12))


@given(st.lists(some_observations, max_size=12), some_ends, st.integers(0, 10**13), st.integers(0, 2))
@settings(max_examples=60)
def test_whatever_was_seen_gives_a_profile_and_sane_predictions(
    observations: list[Observation], remote: Endpoint, now_ns: int, before: int
) -> None:
    profile = classify(observations)
    assert 0 <= profile.confidence <= 1
    predictions = predict(profile, MonoNs(now_ns), remote=remote, before=before)
    chances = [each.probability for each in predictions]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) <= 1 + 1e-9
    assert all(1 <= each.endpoint.port <= 65535 for each in predictions)
    assert len({each.endpoint for each in predictions}) == len(predictions) <= 64


def test_a_mapping_that_serves_the_remote_already_is_used_again() -> None:
    profile = classify([another(6999), *seen((A1, 7000), (A1_OTHER, 7000), (A2, 7001), (A2_OTHER, 7001))])
    assert [each.endpoint.port for each in predict(profile, MonoNs(0), remote=Endpoint(SERVERS[0], 9))] == [7000]
    assert predict(profile, MonoNs(5 * MS), remote=PEER)[0].endpoint.port == 7002


def test_the_next_of_a_sequence_comes_first_and_later_ones_count_those_before() -> None:
    profile = classify([another(6998), *seen((A1, 7000), (A1_OTHER, 7002), (A2, 7004), (A2_OTHER, 7006))])
    assert [predict(profile, MonoNs(4 * MS), remote=PEER, before=n)[0].endpoint.port for n in range(3)] == [
        7008,
        7010,
        7012,
    ]
    assert len(predict(profile, MonoNs(4 * MS), most=3)) == 3


def test_a_syn_that_was_overtaken_makes_no_nat_busy() -> None:
    """The first of the last three took the last port: no others' mappings are needed to explain that."""
    row = [*range(5000, 5008), 5010, 5008, 5009]
    left_ns = [0, *(15 * MS + index for index in range(7)), *(78 * MS + index for index in range(3))]
    seen_so = zip(ports(*((PUNCH_PORT + 2 * index, port) for index, port in enumerate(row))), left_ns, strict=True)
    observations = [replace(each, at_ns=MonoNs(at_ns)) for each, at_ns in seen_so]
    profile = replace(classify(observations), mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT)
    assert profile.allocation is Allocation.SEQUENTIAL
    [first, *_] = predict(profile, now_ns=MonoNs(2_000 * MS), remote=PEER)
    assert (first.endpoint.port, first.probability > 0.5) == (5011, True)


def test_time_that_passes_on_a_busy_nat_makes_a_prediction_less_sure_and_further_off() -> None:
    nat = lab.Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.SEQUENTIAL)
    model = Model([nat], seed=8, others_per_s=40)
    profile = classify(model.discover())
    soon, late = predict(profile, MonoNs(model.now_ns), 9), predict(profile, MonoNs(model.now_ns + 2_000 * MS), 9)
    assert soon[0].probability > 5 * late[0].probability
    last = profile.observations[-1].mapped.port
    assert late[0].endpoint.port - last > 30


@pytest.mark.parametrize("odd", [10**400, -(10**400), float("nan"), float("inf"), True, 1.5, ""])
def test_a_time_or_a_number_of_no_sense_is_a_bad_argument(odd: Any) -> None:
    for ask in (
        lambda: predict(Profile(), odd),
        lambda: predict(Profile(), MonoNs(0), odd),
        lambda: predict(Profile(), MonoNs(0), before=odd),
        lambda: foresee(Profile(), odd, 8),
        lambda: foresee(Profile(), MonoNs(0), odd),
    ):
        with pytest.raises((TypeError, ValueError), match="must be"):
            ask()


def test_random_ports_cannot_be_foreseen() -> None:
    nat = lab.Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
    assert predict(classify(Model([nat], seed=1).discover()), MonoNs(0)) == ()


def test_without_observations_nothing_is_foreseen() -> None:
    assert predict(Profile(), MonoNs(0)) == ()
    stated = Profile(mapping=Mapping.ENDPOINT_INDEPENDENT, mapped=PEER, confidence=0.9)
    assert predict(stated, MonoNs(0)) == (Prediction(PEER, 0.9),)


def random_nat(draws: Random) -> lab.Nat:
    mapping, filtering = draws.choice(lab.MAPPINGS), draws.choice(lab.FILTERINGS)
    strictest = mapping.value == filtering.value == "address-and-port-dependent"
    return lab.Nat(
        mapping=mapping,
        filtering=filtering,
        allocation=draws.choice(lab.ALLOCATIONS),
        unsolicited=draws.choice(list(lab.Unsolicited)),
        step=draws.randint(1, 4),
        others=draws.choice([0.0, draws.uniform(0, 0.5)]),
        parity=draws.random() < 0.3,
        pool=(pool := draws.choice([1, 1, 1, 2, 4])),
        pooling=draws.choice(lab.POOLINGS),
        overloading=strictest and pool == 1 and draws.random() < 0.3,
        translates=draws.random() > 0.05,
    )


def truth(nats: list[lab.Nat]) -> tuple[Mapping, Allocation]:
    """What a row of NATs does as seen from outside: the strictest mapping, the last allocation that is not kept."""
    translating = [nat for nat in nats if nat.translates]
    if not translating:
        return Mapping.NONE, Allocation.PRESERVING
    mapping = max((seen_mapping(nat) for nat in translating), key=list(Mapping).index)
    moving = [nat.allocation for nat in translating if nat.allocation is not Allocation.PRESERVING]
    return mapping, Allocation(moving[-1].value) if moving else Allocation.PRESERVING


def seen_mapping(nat: lab.Nat) -> Mapping:
    # Keeps the number and shares it between destinations, as Linux does: nobody outside can tell.
    if nat.overloading and nat.allocation is Allocation.PRESERVING:
        return Mapping.ENDPOINT_INDEPENDENT
    return Mapping(nat.mapping.value)


def random_row(draws: Random) -> list[lab.Nat]:
    """One NAT, or one time in five a home's usual one and a carrier's."""
    return [lab.Nat(), random_nat(draws)] if draws.random() < 0.2 else [random_nat(draws)]


def test_one_local_port_at_several_addresses_is_no_constant_delta() -> None:
    """Random ports at home, kept by a carrier that gives each destination one of four addresses."""
    strict = Mapping.ADDRESS_AND_PORT_DEPENDENT
    carrier = lab.Nat(mapping=strict, pool=4, pooling=Pooling.ARBITRARY)
    for seed in range(40):
        model = Model([lab.Nat(allocation=Allocation.RANDOM), carrier], seed)
        assert classify(model.discover()).allocation in {Allocation.RANDOM, Allocation.UNKNOWN}


def test_of_500_random_nats_none_is_told_wrong_and_hardly_any_is_unknown() -> None:
    draws = Random(500)
    counts: Counter[str] = Counter()
    for _ in range(500):
        nats = random_row(draws)
        model = Model(nats, draws.randrange(10**9), others_per_s=draws.choice([0, draws.uniform(0, 50)]))
        profile = classify(model.discover(further=draws.randint(6, 8)))
        found, right = (profile.mapping, profile.allocation), truth(nats)
        counts["unknown"] += any(each.value == "unknown" for each in found)
        wrong = [
            each for each in zip(found, right, strict=True) if each[0] is not each[1] and each[0].value != "unknown"
        ]
        assert not wrong, (wrong, nats, profile)
        # A pool that is given out at random may by chance show one address only: once in 2^7, at 8 mappings.
        pooled = nats[-1].pool > 1 and nats[-1].pooling is Pooling.ARBITRARY and nats[-1].translates
        counts["wrong pool"] += profile.pooling is (Pooling.PAIRED if pooled else Pooling.ARBITRARY)
    assert counts["unknown"] <= 25
    assert counts["wrong pool"] <= 2


def test_a_port_foreseen_with_some_probability_comes_that_often() -> None:
    """Of all predictions with a probability near p, a share near p comes true: 400 NATs, 64 predictions each.

    Tolerance: three standard deviations of a binomial share, and 0.06 because the NATs here are not drawn from the
    prior that `port_sequence.py` assumes (nobody knows the right one).
    """
    draws = Random(7)
    said: defaultdict[int, list[float]] = defaultdict(list)
    came: Counter[int] = Counter()
    for _ in range(400):
        model = Model([sequential_nat(draws)], draws.randrange(10**9), draws.choice([0, 0, 0, 3, 15]))
        profile = classify(model.discover())
        model.pass_time(draws.choice([0, 100 * MS, 1000 * MS]))
        predictions = predict(profile, MonoNs(model.now_ns), remote=PEER)
        arrived = model.mapped(LOCAL, PEER)
        for each in predictions:
            said[int(10 * each.probability)].append(each.probability)
            came[int(10 * each.probability)] += each.endpoint == arrived
    assert set(said) >= {0, 1, 2, 4, 6}
    for tenth, chances in said.items():
        mean, share = sum(chances) / len(chances), came[tenth] / len(chances)
        assert abs(share - mean) <= 3 * sqrt(mean * (1 - mean) / len(chances)) + 0.06, (tenth, mean, share)


def sequential_nat(draws: Random) -> lab.Nat:
    return replace(
        lab.Nat(allocation=Allocation.SEQUENTIAL),
        mapping=draws.choice([Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT]),
        step=draws.choice([1, 1, 1, 1, 2, 2, 3, 4]),
        others=draws.choice([0, 0, 0.1, 0.2, 0.3]),
    )


APDM = Mapping.ADDRESS_AND_PORT_DEPENDENT


def own_row(*, one_row: bool, step: int = 1, others: float = 0.0, parity: bool = False) -> lab.Nat:
    allocation = Allocation.SEQUENTIAL
    return lab.Nat(APDM, allocation=allocation, one_row=one_row, step=step, others=others, parity=parity)


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("dead", [0, 4])
def test_what_this_program_sent_itself_makes_no_row_look_busy(*, one_row: bool, step: int, dead: int) -> None:
    """Questions over UDP, and servers that never answered: without the record of them they are a busy neighbour's."""
    for seed in range(12):
        model = Model([own_row(one_row=one_row, step=step)], seed)
        seen = model.discover(dead=dead)
        profile = classify(seen, flows=model.flows)
        assert (profile.allocation, profile.step, profile.busy) == (Allocation.SEQUENTIAL, step, 0.0)
        assert profile.one_row is one_row
        assert predict(profile, MonoNs(model.now_ns), remote=PEER)[0].endpoint == model.mapped(LOCAL, PEER)


def test_without_a_record_of_them_they_are_a_busy_neighbours() -> None:
    model = Model([own_row(one_row=True)], seed=1)
    profile = classify(model.discover(dead=4))
    assert profile.busy is not None
    assert profile.busy > 0.2
    assert profile.one_row is None


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("one_row", [False, True])
def test_among_others_it_is_seldom_told_wrong_whether_there_is_one_row(*, one_row: bool, parity: bool) -> None:
    """What is not told for sure is None: of 60 rows that others share, one in ten at most is told wrong."""
    told = Counter[bool | None]()
    for seed in range(60):
        model = Model([own_row(one_row=one_row, others=0.2, parity=parity)], seed)
        told[classify(model.discover(), flows=model.flows).one_row] += 1
    assert told[not one_row] <= 6, told


@pytest.mark.parametrize("one_row", [False, True])
def test_others_at_the_steps_of_this_programs_other_flows_make_a_row_no_busier(*, one_row: bool) -> None:
    """Such as another port's discovery at once with this one: as many flows again as show their mapping."""
    shares = []
    for seed in range(40):
        model = Model([own_row(one_row=one_row, others=0.15)], seed)
        seen = model.discover(dead=12)
        profile = classify(seen, flows=model.flows, hosts=[LOCAL])
        assert profile.busy is not None
        shares.append(profile.busy)
        row = foresee(profile, MonoNs(model.now_ns + 2500 * MS), 8)
        assert len(row) == 8
        assert foresee(profile, MonoNs(model.now_ns + 2500 * MS), 8, least=sum(row[3].values())) == row[:4]
    assert sum(shares) / len(shares) == pytest.approx(0.15, abs=0.03)


def test_an_own_flow_that_had_its_mapping_from_before_makes_no_row_unclear() -> None:
    """As one from a port that a discovery of some minutes ago had, to the same server."""
    model = Model([own_row(one_row=False)], seed=9)
    old = Endpoint("192.0.2.1", PORT)
    model.mapped(LOCAL, old)
    seen = model.discover(dead=4)
    profile = classify(seen, flows=model.flows, hosts=[LOCAL])
    assert any(flow.remote == old for flow in model.flows)
    assert (profile.step, profile.busy) == (1, 0.0)
    assert profile.one_row is not True
    assert predict(profile, MonoNs(model.now_ns), remote=PEER)[0].endpoint == model.mapped(LOCAL, PEER)


def test_flows_that_cross_no_nat_and_flows_of_one_mapping_are_not_counted() -> None:
    model = Model([own_row(one_row=True)], seed=5)
    near = [
        Flow(False, 40001, Endpoint(to, 123), MonoNs(1))
        for to in ("127.0.0.1", "169.254.9.9", "192.168.1.1", "fe80::1")
    ]
    seen = model.discover()
    again = [flow._replace(at_ns=MonoNs(flow.at_ns + 1)) for flow in model.flows]
    profile = classify(seen, flows=[*near, *model.flows, *again])
    assert (profile.busy, profile.one_row) == (0.0, True)


@pytest.mark.parametrize(("one_row", "taken"), [(False, 2), (True, 5)])
def test_what_went_out_since_can_be_asked(*, one_row: bool, taken: int) -> None:
    model = Model([own_row(one_row=one_row)], seed=6)
    profile = classify(model.discover(), flows=model.flows)
    latest_ns = profile.observations[-1].at_ns
    for number in range(5):
        model.send(Endpoint("192.0.2.1", number + 1), is_tcp=number < 2)
    later = [flow for flow in model.flows if flow.at_ns > latest_ns]
    assert taken_since(profile, later) == taken
    assert taken_since(replace(profile, mapping=Mapping.ENDPOINT_INDEPENDENT), later) == 0
    assert taken_since(replace(profile, allocation=Allocation.RANDOM), later) == 0


@pytest.mark.parametrize("step", [1, 2, 3])
def test_where_parity_is_kept_what_went_out_since_is_counted_by_its_parity(step: int) -> None:
    """Flows of both parities take fewer ports than as many of one: the next mapping shows by how many."""
    for seed in range(8):
        model = Model([own_row(one_row=True, step=step, parity=True)], seed)
        profile = classify(model.discover(), flows=model.flows)
        latest = profile.observations[-1]
        for number in range(20):
            model.send(Endpoint("192.0.2.1", number + 1), is_tcp=True)
        taken = taken_since(profile, [flow for flow in model.flows if flow.at_ns > latest.at_ns])
        moved = model.mapped(LOCAL, PEER).port - latest.mapped.port
        assert abs(moved - (taken + 1) * (step + step % 2)) <= 2


def test_a_syn_that_was_overtaken_by_own_flows_shows_one_row_all_the_same() -> None:
    """The first mapping's SYN was lost, and came after all others: only its port is out of order."""
    model = Model([own_row(one_row=True)], seed=8)
    model.pass_time(1)
    first_ns = model.now_ns
    seen = model.discover()
    late = Endpoint(SERVERS[3], PORT)
    seen.append(Observation(LOCAL, late, model.mapped(LOCAL, late), MonoNs(first_ns)))
    profile = classify(seen, flows=model.flows)
    assert (profile.allocation, profile.one_row) == (Allocation.SEQUENTIAL, True)
    assert predict(profile, MonoNs(model.now_ns), remote=PEER)[0].endpoint == model.mapped(LOCAL, PEER)
