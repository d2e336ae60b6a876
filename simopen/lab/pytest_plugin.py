"""A pytest fixture for programs that speak to peers: `lab_network`, an entered `Network`.

::

    # conftest.py
    pytest_plugins = ["simopen.lab.pytest_plugin"]

    # test_it.py
    async def test_two_hosts(lab_network):
        left = await lab_network.host("left", delay_s=0.02, nat=lab.Nat())
        assert (await left.run(["true"])).returncode == 0

It is no entry point on purpose: pytest loads those in every run of everybody who has simopen installed, also for the
stream alone, and before it measures coverage. Naming it costs one line, and only those who want it pay. The fixture is
pytest-asyncio's, and works in its strict mode as in its auto mode.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from simopen.lab.network import Network
from simopen.lab.process.control import available

NO_SKIP = "SIMOPEN_NO_SKIP"


@pytest_asyncio.fixture
async def lab_network() -> AsyncIterator[Network]:
    """A network of its own for each test; its hosts, and what runs on them, end with the test.

    Where no lab can be had, the test skips with the reason. With SIMOPEN_NO_SKIP=1 in the environment, for a CI that
    must have a lab, it fails instead.
    """
    if (reason := await asyncio.to_thread(available)) is not None:
        _give_up(f"no lab: {reason}")
    async with Network() as network:
        yield network


def _give_up(reason: str) -> None:
    if os.environ.get(NO_SKIP):
        pytest.fail(f"{reason} (and {NO_SKIP} is set)", pytrace=False)
    pytest.skip(reason)
