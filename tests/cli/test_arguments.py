"""What people type, as values, and what a slip is told."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import pytest

from simopen.cli.arguments import argument, count, hops, port, share, window

UP_TO_TEN = partial(count, most=10)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (port, "1314", 1314),
        (hops, "2", 2),
        (window, "250ms", 0.25),
        (window, "1m30s", 90),
        (share, "2%", 0.02),
        (share, "0.02", 0.02),
        (share, "0", 0),
        (share, "99.9%", pytest.approx(0.999)),
        (UP_TO_TEN, "1", 1),
        (UP_TO_TEN, "10", 10),
    ],
)
def test_what_is_typed_has_a_value(parse: Callable[[str], float], text: str, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "told"),
    [
        (port, "http", "a port is a number"),
        (port, "0", "port"),
        (port, "65536", "port"),
        (hops, "0", "between 1 and 255"),
        (hops, "256", "between 1 and 255"),
        (hops, "two", "between 1 and 255"),
        (window, "0s", "longer than zero"),
        (window, "-1", "no duration"),
        (window, "9" * 300, "longer than 10\\^9 s"),
        (window, "9" * 400, "longer than 10\\^9 s"),
        (window, f"1{'0' * 10}h", "longer than 10\\^9 s"),
        (share, "100%", "below 100%"),
        (share, "1", "below 100%"),
        (share, "-0.1", "below 100%"),
        (share, "nan", "below 100%"),
        (share, "%", "no share"),
        (UP_TO_TEN, "0", "from 1 to 10"),
        (UP_TO_TEN, "11", "from 1 to 10"),
        (UP_TO_TEN, "1.5", "from 1 to 10"),
    ],
)
def test_a_slip_is_told(parse: Callable[[str], float], text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(text)
    with pytest.raises(argparse.ArgumentTypeError, match=told):
        argument(parse)(text)
