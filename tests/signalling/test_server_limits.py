"""What one client, one address and all together may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.signalling.server_limits import Accounts, Bucket, Limits, owner

PACE = {"a_second": 2.0, "most": 10.0}


def test_a_bucket_gives_a_burst_and_then_its_pace() -> None:
    bucket = Bucket(10, now=0.0)
    assert [bucket.take(1, 0.0, **PACE) for _ in range(11)] == [0.0] * 10 + [0.5]
    assert bucket.take(1, 0.5, **PACE) == 0.0
    assert not bucket.is_full(0.5, **PACE)
    assert bucket.is_full(10.0, **PACE)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 12)), max_size=40))
def test_no_more_passes_than_the_burst_and_the_pace(steps: list[tuple[float, int]]) -> None:
    bucket, now, passed = Bucket(10, 0.0), 0.0, 0.0
    for wait_s, count in steps:
        now += wait_s
        passed += 0.0 if bucket.take(count, now, **PACE) else count
        assert passed <= 10 + 2 * now + max((count for _, count in steps), default=0)


def test_a_debt_is_paid_before_more_is_had() -> None:
    bucket = Bucket(10, 0.0)
    assert bucket.spend(30, 0.0, **PACE) == 10.0
    assert bucket.spend(0, 10.0, **PACE) == 0.0


OWNERS = {
    "192.0.2.7": "192.0.2.7",
    "::ffff:192.0.2.7": "192.0.2.7",
    "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
    "fe80::1%2": "fe80::/64",
    "no address": "no address",
}


@pytest.mark.parametrize(("address", "whose"), OWNERS.items(), ids=OWNERS)
def test_whom_an_address_stands_for(address: str, whose: str) -> None:
    assert owner(address) == whose


def test_one_address_is_full_before_the_server_is() -> None:
    accounts = Accounts(Limits(connections=3, connections_an_address=2))
    assert [accounts.connect("a"), accounts.connect("a")] == [None, None]
    assert "this address" in (accounts.connect("a") or "")
    assert accounts.connect("b") is None
    assert "full" in (accounts.connect("c") or "")
    accounts.disconnect("a")
    assert accounts.connect("c") is None


def test_who_has_nothing_is_forgotten() -> None:
    accounts = Accounts(Limits())
    accounts.connect("a")
    accounts.disconnect("a")
    assert len(accounts) == 0
    accounts.try_room("b", 0.0)
    accounts.sweep(1.0)
    assert len(accounts) == 1, "it has tried a room a moment ago"
    accounts.sweep(3600.0)
    assert len(accounts) == 0


def test_of_too_many_addresses_the_oldest_are_forgotten_but_none_that_is_here() -> None:
    accounts = Accounts(Limits(), most=10)
    accounts.connect("here")
    for number in range(30):
        accounts.try_room(f"{number}", 0.0)
    accounts.sweep(0.0)
    assert len(accounts) == 10
    accounts.disconnect("here")


@pytest.mark.parametrize("name", ["connections", "ping_s", "bytes_a_second"])
def test_a_bound_is_above_zero(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})
