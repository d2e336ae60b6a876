"""NATs by name and description: what each word means, what a slip is told, and that text and values agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.lab.nat.model import ALLOCATIONS, FILTERINGS, MAPPINGS, POOLINGS, Nat, Unsolicited
from simopen.lab.nat.presets import OPTIONS, PRESETS, WORDS, explained, format_nats, parse_nats, short_name
from simopen.lab.net.linux_router import Input, LinuxRouter
from simopen.model.nat import Allocation, Filtering, Mapping, Pooling

RANDOM, STRICT = Allocation.RANDOM, Mapping.ADDRESS_AND_PORT_DEPENDENT


@pytest.mark.parametrize(
    ("text", "nats"),
    [
        ("home", (Nat(),)),
        ("open", ()),
        ("home+open+home", (Nat(), Nat())),
        ("firewall", (Nat(translates=False),)),
        ("mobile", (Nat(mapping=STRICT, allocation=RANDOM),)),
        ("cgn", (Nat(filtering=Filtering.ENDPOINT_INDEPENDENT, allocation=RANDOM, pool=4),)),
        ("corporate", (Nat(mapping=STRICT, allocation=RANDOM, unsolicited=Unsolicited.RESET),)),
        ("sequential", (Nat(allocation=Allocation.SEQUENTIAL),)),
        ("address-dependent", (Nat(mapping=Mapping.ADDRESS_DEPENDENT),)),
        ("/address-dependent", (Nat(filtering=Filtering.ADDRESS_DEPENDENT),)),
        (
            "endpoint-independent/endpoint-independent , port-preserving",
            (Nat(filtering=Filtering.ENDPOINT_INDEPENDENT),),
        ),
        (
            "address-dependent/address-dependent,random,reset",
            (Nat(Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_DEPENDENT, RANDOM, Unsolicited.RESET),),
        ),
        ("sequential,step=4,others=0.3", (Nat(allocation=Allocation.SEQUENTIAL, step=4, others=0.3),)),
        ("home,hold,reset-kills", (Nat(unsolicited=Unsolicited.HOLD, reset_kills=True),)),
        ("refuses-syns,parity,hairpinning", (Nat(refuses_syns=True, parity=True, hairpinning=True),)),
        ("sequential,one-row", (Nat(allocation=Allocation.SEQUENTIAL, one_row=True),)),
        ("pool=4,arbitrary", (Nat(pool=4, pooling=Pooling.ARBITRARY),)),
        ("home,icmp,icmp=30", (Nat(unsolicited=Unsolicited.ICMP, icmp_timeout_s=30.0),)),
        ("home,accept,tracking", (Nat(unsolicited=Unsolicited.ACCEPT, tracking=True),)),
        ("home + cgn,drop", (Nat(), *PRESETS["cgn"].nats)),
    ],
)
def test_a_description_means_these_nats(text: str, nats: tuple[Nat, ...]) -> None:
    assert parse_nats(text) == nats


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hoem", "'hoem' is no behaviour of a NAT: do you mean home"),
        ("sequental", "do you mean sequential"),
        ("endpoint-independant", "do you mean endpoint-independent"),
        ("endpoint-independent/adress-dependent", "no filtering of a NAT: do you mean address-dependent"),
        ("symmetric/address-dependent", "'symmetric' is no mapping of a NAT: there are endpoint-independent, address-"),
        ("home,rest", "do you mean reset"),
        ("home,stp=4", "'stp' is no option of a NAT: do you mean step"),
        ("home,step=x", "step= takes a whole number"),
        ("home,step=1.5", "step= takes a whole number"),
        ("home,others=much", "others= takes a number"),
        ("home,others=1", "others take a port with a chance"),
        ("home,step=0", "steps of 1 or more"),
        ("home,udp=-1", "time-outs are above 0 s"),
        ("open,reset", "'open' has no NAT that 'reset' could change"),
        ("", "a word is missing: there are home, cgn"),
        ("home,", "a word is missing"),
        ("home++cgn", "a word is missing"),
        ("qqqqqq", "there are home, cgn, mobile, corporate"),
    ],
)
def test_a_slip_is_told_what_there_is(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("+", r"\+")):
        parse_nats(text)


NATS = st.builds(
    Nat,
    st.sampled_from(MAPPINGS),
    st.sampled_from(FILTERINGS),
    st.sampled_from(ALLOCATIONS),
    st.sampled_from(Unsolicited),
    step=st.integers(1, 100),
    others=st.floats(0, 0.99),
    parity=st.booleans(),
    hairpinning=st.booleans(),
    reset_kills=st.booleans(),
    refuses_syns=st.booleans(),
    tracking=st.booleans(),
    pool=st.integers(1, 20),
    pooling=st.sampled_from(POOLINGS),
    translates=st.booleans(),
    established_timeout_s=st.floats(0.001, 1e5),
    udp_timeout_s=st.floats(0.001, 1e5),
)


@given(st.lists(NATS, max_size=3).map(tuple))
def test_what_is_written_reads_back(nats: tuple[Nat, ...]) -> None:
    assert parse_nats(format_nats(nats)) == nats
    assert parse_nats(short_name(nats)) == nats


def test_overloading_reads_back_too() -> None:
    nats = (Nat(mapping=STRICT, overloading=True),)
    assert parse_nats(format_nats(nats)) == nats


@pytest.mark.parametrize("input_", Input)
def test_a_real_routers_model_reads_back(input_: Input) -> None:
    nats = (LinuxRouter(input_).model,)
    assert parse_nats(format_nats(nats)) == nats


@given(st.text("homecgn+,=/-.15 é", max_size=30))
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    try:
        nats = parse_nats(text)
    except ValueError:
        return
    assert parse_nats(format_nats(nats)) == nats


@pytest.mark.parametrize("name", PRESETS)
def test_a_short_name_is_the_short_name_of_its_nats(name: str) -> None:
    assert short_name(parse_nats(name)) == name
    assert parse_nats(format_nats(parse_nats(name))) == parse_nats(name)


def test_a_chain_keeps_its_short_names() -> None:
    assert short_name(parse_nats("home+cgn")) == "home+cgn"


def test_everything_is_explained() -> None:
    words = [word for word, _ in explained()]
    assert len(words) == len(set(words))
    assert {*PRESETS, *WORDS, *(f"{name}=N" for name in OPTIONS), *(mapping.value for mapping in MAPPINGS)} == set(
        words
    )
    assert all(10 < len(says) < 120 for _, says in explained())
