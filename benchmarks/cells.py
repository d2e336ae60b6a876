"""Which NATs meet which in `benchmarks.matrix`: the kinds, and the cells that are made of them.

Names are by RFC 7857's abbreviations: mapping (M) / filtering (F), endpoint-independent (EI), address-dependent (AD),
address-and-port-dependent (APD). The port is kept where nothing else is said; "next" keeps it where it is free.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from benchmarks.expected import Expected, Line, Outlook, expected, together
from simopen.lab import Allocation, Filtering, Mapping, Nat, Unsolicited

Nats = tuple[Nat, ...]

_CARRIER = Nat(filtering=Filtering.ENDPOINT_INDEPENDENT, allocation=Allocation.RANDOM)
_MOVING = Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT)
_BY_ADDRESS = Nat(Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_DEPENDENT)

# Each meets each, and itself: the heat map.
KINDS: dict[str, Nats] = {
    "open": (),
    "firewall": (Nat(translates=False),),
    "EIM/EIF random": (_CARRIER,),
    "EIM/ADF": (Nat(filtering=Filtering.ADDRESS_DEPENDENT),),
    "EIM/APDF": (Nat(),),
    "EIM/APDF, RST": (Nat(unsolicited=Unsolicited.RESET),),
    "EIM/APDF, ICMP": (Nat(unsolicited=Unsolicited.ICMP),),
    "EIM/APDF, holds": (Nat(unsolicited=Unsolicited.HOLD),),
    "EIM/APDF + carrier": (Nat(), _CARRIER),
    "APDM overloading": (replace(_MOVING, overloading=True),),
    "ADM/ADF random": (replace(_BY_ADDRESS, allocation=Allocation.RANDOM),),
    "APDM/EIF random": (replace(_MOVING, filtering=Filtering.ENDPOINT_INDEPENDENT, allocation=Allocation.RANDOM),),
    "APDM/APDF next": (_MOVING,),
    "APDM/APDF sequential": (replace(_MOVING, allocation=Allocation.SEQUENTIAL),),
    "APDM/APDF random": (replace(_MOVING, allocation=Allocation.RANDOM),),
}


def _sequential(step: int, others: float) -> str:
    """The name of an APDM/APDF NAT whose ports are `step` apart, that share of them taken by others."""
    plain = (step, others) == (1, 0)
    return "APDM/APDF sequential" if plain else f"APDM/APDF sequential, step {step}, others {others:.0%}"


_STEPS, _OTHERS = (1, 2, 3, 4), (0.0, 0.1, 0.3)
_SEQUENTIALS = {
    _sequential(step, others): (replace(_MOVING, allocation=Allocation.SEQUENTIAL, step=step, others=others),)
    for step, others in itertools.product(_STEPS, _OTHERS)
}
_AWKWARD: dict[str, Nats] = {
    "EIM/APDF, no SYN in": (Nat(refuses_syns=True),),
    "EIM/APDF, no SYN in, RST": (Nat(refuses_syns=True, unsolicited=Unsolicited.RESET),),
    "EIM/APDF, closes on RST": (Nat(reset_kills=True),),
    "EIM/APDF random, closes on RST": (Nat(reset_kills=True, allocation=Allocation.RANDOM),),
    "EIM/APDF, holds": KINDS["EIM/APDF, holds"],
}
# Both hosts behind the same one; where it hairpins, they reach each other by its public address only.
TOGETHER: dict[str, Nats] = {
    "one LAN: EIM/APDF": (Nat(),),
    "one LAN: APDM/APDF random": KINDS["APDM/APDF random"],
    "one NAT, hairpinning: EIM/APDF": (Nat(hairpinning=True),),
    "one NAT, hairpinning: EIM/EIF random": (replace(_CARRIER, hairpinning=True),),
}
# These meet only some.
FURTHER: dict[str, Nats] = {
    "EIM/APDF sequential": (Nat(allocation=Allocation.SEQUENTIAL),),
    "EIM/APDF random": (Nat(allocation=Allocation.RANDOM),),
    "ADM/ADF sequential": (replace(_BY_ADDRESS, allocation=Allocation.SEQUENTIAL),),
    "ADM/APDF sequential": (Nat(Mapping.ADDRESS_DEPENDENT, allocation=Allocation.SEQUENTIAL),),
    **_SEQUENTIALS,
    **_AWKWARD,
    **TOGETHER,
}
_ONE_ROW = ", one row"
# Again as NATs that count TCP's and UDP's ports in one row, where they count ports: others have a row a protocol.
ONE_ROW: dict[str, Nats] = {
    kind + _ONE_ROW: tuple(replace(nat, one_row=True) for nat in nats)
    for kind, nats in (KINDS | FURTHER).items()
    if any(nat.allocation is Allocation.SEQUENTIAL for nat in nats)
}
ALL_KINDS = KINDS | FURTHER | ONE_ROW


def in_one_row(kind: str) -> str:
    """The kind that is the same in all but that; itself where it makes no difference."""
    return kind + _ONE_ROW if kind + _ONE_ROW in ONE_ROW else kind


def is_isolated(kind: str) -> bool:
    """Whether two hosts behind the same one cannot reach each other's own addresses."""
    return kind in TOGETHER and any(nat.hairpinning for nat in ALL_KINDS[kind])


class Cell(NamedTuple):
    """A pair of kinds, and by how many ms the right side fires later."""

    left: str
    right: str
    apart_ms: float = 0.0

    @property
    def turned(self) -> Cell:
        """The other side is the left one, and so the earlier."""
        return self._replace(left=self.right, right=self.left)

    @property
    def is_together(self) -> bool:
        """Whether both hosts are behind the same NAT."""
        return self.left in TOGETHER

    @property
    def expected(self) -> Expected:
        """What is to come of it."""
        if self.is_together:
            return together(isolated=is_isolated(self.left))
        return expected(ALL_KINDS[self.left], ALL_KINDS[self.right])

    @property
    def sprays(self) -> bool:
        """Whether the users allow it to."""
        return self.expected.outlook is Outlook.SPRAYS

    @property
    def first_ttl(self) -> int | None:
        """The hops of the users' first shots, where a RST would do lasting harm. The lab's paths have six."""
        closes = any(nat.reset_kills for kind in (self.left, self.right) for nat in ALL_KINDS[kind])
        return 3 if closes else None

    def __str__(self) -> str:
        both = self.left if self.is_together else f"{self.left} × {self.right}"
        return f"{both}, {self.apart_ms:g} ms apart" if self.apart_ms else both


def _some_cells() -> list[Cell]:
    """The cells of `FURTHER`."""
    allocations = ("EIM/APDF", "EIM/APDF sequential", "EIM/APDF random")
    quiet = [(1, 4), (2, 2), (3, 3), (4, 4)]
    busy = [(1, 1), (1, 2), (3, 3), (4, 4)]
    by_address, random = ("ADM/ADF sequential", "ADM/APDF sequential"), ("ADM/ADF random", "APDM/APDF random")
    pairs = [
        *itertools.combinations_with_replacement(allocations, 2),
        *itertools.product([*_SEQUENTIALS, *by_address], ["EIM/APDF"]),
        *((_sequential(one, 0), _sequential(other, 0)) for one, other in quiet),
        *((_sequential(one, 0.1), _sequential(other, 0.1)) for one, other in busy),
        *itertools.product(by_address, random),
    ]
    victims = ("open", "EIM/APDF", "EIM/APDF, RST")
    crossing = [Cell(kind, other) for kind in _AWKWARD if "no SYN in" in kind for other in victims]
    strays = [Cell(kind, other, 100.0) for kind in _AWKWARD for other in victims]
    closing = [Cell(kind, kind, 100.0) for kind in _AWKWARD if "closes" in kind]
    return [*itertools.starmap(Cell, pairs), *crossing, *strays, *closing, *(Cell(kind, kind) for kind in TOGETHER)]


def _all_cells() -> tuple[Cell, ...]:
    """Every cell, once."""
    found: dict[frozenset[object], Cell] = {}
    for cell in (*itertools.starmap(Cell, itertools.combinations_with_replacement(KINDS, 2)), *_some_cells()):
        found.setdefault(frozenset(cell), cell)
    for cell in tuple(found.values()):
        if cell.expected.outlook is not Outlook.NEVER:  # what is refused by its classes does not hang on ports
            twin = cell._replace(left=in_one_row(cell.left), right=in_one_row(cell.right))
            found.setdefault(frozenset(twin), twin)
    return tuple(found.values())


CELLS = _all_cells()


def counted() -> list[Cell]:
    """The cells of NATs that count ports."""
    kinds = {*ONE_ROW, *(kind for kind in ALL_KINDS if in_one_row(kind) != kind)}
    return [cell for cell in CELLS if {cell.left, cell.right} & kinds]


def among(kinds: Collection[str]) -> list[Cell]:
    """The cells of these kinds alone."""
    return [cell for cell in CELLS if {cell.left, cell.right} <= set(kinds)]


def one_of_each_line() -> list[Cell]:
    """As few cells as meet every bar; of the awkward ones, one of which a stray SYN meets the NAT.

    And of what one row makes hard, the hardest: both sides must foresee.
    """
    apart = [cell for cell in CELLS if not cell.is_together and not {cell.left, cell.right} & ONE_ROW.keys()]
    latest: dict[Line, Cell] = {cell.expected.line: cell for cell in apart}
    counting = in_one_row("APDM/APDF sequential")
    return [*latest.values(), Cell(counting, counting), *(Cell(kind, kind) for kind in TOGETHER)]
