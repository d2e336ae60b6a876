"""What the demo tells of each side. That it runs is in `test_main.py`."""

from __future__ import annotations

import pytest

from simopen.cli.demo import _took


@pytest.mark.parametrize("elapsed_s", [0.0, 0.0814])
def test_how_long_it_took_is_told_however_short_that_was(elapsed_s: float) -> None:
    """On loopback a stream may be dated at its SYN: the kernel counts the time since in jiffies."""
    told = _took({"report": {"elapsed_s": elapsed_s, "late_s": 5e-6}})
    assert told == f"   (connected {elapsed_s * 1e3:.1f} ms after its SYN, which left 5 µs after the instant)"


@pytest.mark.parametrize("said", [{}, {"report": None}, {"report": {"elapsed_s": None, "late_s": 0.0}}])
def test_where_nobody_was_met_nothing_is_told(said: dict[str, object]) -> None:
    assert not _took(said)
