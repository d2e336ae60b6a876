"""Numbers that no lab can be made of, and arguments of no sensible type: each is told at once."""

from __future__ import annotations

import math
from typing import Any

import pytest

from simopen.lab import Conditions, Nat, Network

TIMES = ("established_timeout_s", "transitory_timeout_s", "udp_timeout_s", "icmp_timeout_s")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e10, 10**400, -(10**4000), -1, -1e-9])
@pytest.mark.parametrize("field", [*TIMES, "others", "step", "pool"])
def test_a_number_that_no_nat_has(field: str, value: float) -> None:
    with pytest.raises((ValueError, TypeError)):
        Nat(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e10, 10**400, -(10**4000), -1])
@pytest.mark.parametrize("field", ["delay_s", "jitter_s", "loss", "duplicate", "hops"])
def test_a_number_that_no_path_has(field: str, value: float) -> None:
    with pytest.raises((ValueError, TypeError)):
        Conditions(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [5, 10**4000, None, "", math.nan])
@pytest.mark.parametrize("field", ["mapping", "filtering", "allocation", "pooling"])
def test_what_is_no_behaviour_is_said_to_be_none(field: str, value: object) -> None:
    with pytest.raises(ValueError, match="no NAT model has"):
        Nat(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["1", None, [], b"1", True, 1j])
@pytest.mark.parametrize(
    ("kind", "field"), [(Nat, "step"), (Nat, "udp_timeout_s"), (Conditions, "delay_s"), (Conditions, "hops")]
)
def test_what_is_no_number_is_a_type_error(kind: Any, field: str, value: object) -> None:
    with pytest.raises(TypeError, match="number, not"):
        kind(**{field: value})


@pytest.mark.parametrize("nat", ["home", 5, ("home",), (Nat(), None)])
def test_what_is_no_nat_is_a_type_error(nat: Any) -> None:
    with pytest.raises(TypeError, match="nat is a Nat"):
        Conditions(nat=nat)


@pytest.mark.parametrize(("name", "error"), [(5, TypeError), (None, TypeError), ("x" * 999, ValueError)])
async def test_a_name_that_no_host_has(name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="a host's name"):
        await Network().host(name)
