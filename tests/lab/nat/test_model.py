"""Which NATs can be described."""

from __future__ import annotations

from typing import Any

import pytest

from simopen.lab.nat.model import Nat
from simopen.model.nat import Allocation, Filtering, Mapping, Pooling

STRICTEST = Mapping.ADDRESS_AND_PORT_DEPENDENT


@pytest.mark.parametrize("name", ["established_timeout_s", "transitory_timeout_s", "udp_timeout_s", "icmp_timeout_s"])
def test_a_time_out_is_above_zero(name: str) -> None:
    with pytest.raises(ValueError, match="above 0 s"):
        Nat(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"step": 0}, "steps of 1 or more"),
        ({"others": 1.0}, "0 to below 1"),
        ({"others": -0.1}, "0 to below 1"),
        ({"pool": 0}, "1 to 254"),
        ({"pool": 255}, "1 to 254"),
        ({"overloading": True}, "only the remote"),
        ({"overloading": True, "mapping": Mapping.ADDRESS_DEPENDENT}, "only the remote"),
        ({"overloading": True, "mapping": STRICTEST, "filtering": Filtering.ADDRESS_DEPENDENT}, "only the remote"),
    ],
)
def test_a_nat_that_cannot_be_is_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Nat(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mapping": Mapping.NONE},
        {"mapping": Mapping.UNKNOWN},
        {"filtering": Filtering.UNKNOWN},
        {"allocation": Allocation.CONSTANT_DELTA},
        {"pooling": Pooling.UNKNOWN},
    ],
    ids=str,
)
def test_words_for_what_is_not_known_are_no_models_behaviour(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no NAT model has"):
        Nat(**wrong)
