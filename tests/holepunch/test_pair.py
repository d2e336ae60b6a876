"""The states of an attempt: the table that a reader sees is the one that the code has."""

from __future__ import annotations

import pytest

from simopen.holepunch import pair
from simopen.holepunch.pair import TRANSITIONS, Pair, State, Step
from simopen.model.endpoint import Endpoint
from simopen.model.shot import Shot


def test_the_table_in_the_docstring_is_the_one_in_the_code() -> None:
    assert pair.__doc__ is not None
    head, *rows = (line for line in pair.__doc__.splitlines() if line.startswith("    "))
    steps = {step: head.index(f"  {step.name.lower().replace('_', ' ')}") + 2 for step in Step if step is not Step.END}
    told = {State[row.split()[0]]: {step: row[at:].partition(" ")[0] for step, at in steps.items()} for row in rows}
    code = {state: {step: there.name for step, there in row.items()} for state, row in TRANSITIONS.items()}
    assert {state: {**{step: name for step, name in row.items() if name}, Step.END: "CLOSED"}
            for state, row in told.items()} == code  # fmt: skip


@pytest.mark.parametrize("state", State)
def test_what_leads_where(state: State) -> None:
    """Whatever is not in the table is a fault of the engine's."""
    for step in Step:
        attempt = Pair(Shot(1, Endpoint("192.0.2.1", 1)), state=state)
        if step in TRANSITIONS.get(state, {}):
            attempt.step(step)
            assert attempt.state is TRANSITIONS[state][step]
        else:
            with pytest.raises(KeyError):
                attempt.step(step)
