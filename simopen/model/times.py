"""The two ways in which ns are counted here, kept apart by type: a mix-up is off by the machine's whole uptime."""

from __future__ import annotations

from typing import NewType, TypeAlias

UtcNs = NewType("UtcNs", int)
"""True time: ns of UTC since 1970."""
MonoNs = NewType("MonoNs", int)
"""CLOCK_MONOTONIC, ns: what waits and measures. It stands still while the machine sleeps."""
AnyNs: TypeAlias = UtcNs | MonoNs
"""Either, for what is computed alike by both: never two of them by different clocks in one computation."""
NEVER = MonoNs(0)
"""Before anything that is timed."""
