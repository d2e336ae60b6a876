"""Which loops a test is run on, where not on both."""

from __future__ import annotations

import pytest

ONE_LOOP = pytest.mark.asyncio(loop_factories=["asyncio"])
"""What is tested runs in a process of its own, on a loop of its own choice: the test's loop only waits for it."""
