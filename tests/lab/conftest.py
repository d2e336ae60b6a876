"""What the lab's own tests share. Where no lab can be had, tests marked `lab` skip with its reason."""

from __future__ import annotations

import pytest

from simopen import lab


@pytest.fixture(params=["tun", "veth"])
def link(request: pytest.FixtureRequest) -> str:
    """Each kind of link in turn; one that cannot be had here skips, and says why."""
    reason = lab.available(request.param)
    if reason:
        pytest.skip(reason)
    return str(request.param)
