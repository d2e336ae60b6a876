"""Whether a value can be what an option of the lab needs at all, before its own range is looked at. Pure."""

from __future__ import annotations

from simopen.model.wording import quoted

MOST = 1e9
"""No delay, time-out or step is larger: seconds of 31 years, and in ns they still fit the lab's timers."""


def check_numbers(*, whole: bool = False, **values: object) -> None:
    """Raises: TypeError for what is no number (`whole`: no whole one); ValueError for NaN or what is beyond `MOST`."""
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise TypeError(f"{name} is a {'whole ' * whole}number, not {type(value).__name__}")
        if not abs(value) <= MOST:  # type: ignore[arg-type]  # nor NaN
            raise ValueError(f"{name} is a number up to {MOST:.0e}, not {quoted(value)}")
