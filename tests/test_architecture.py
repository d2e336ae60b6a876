"""The house keeps its shape: imports point down, heavy things load late, what is pure stays pure."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import simopen

PACKAGE = Path(simopen.__file__).parent
# From top to bottom; a module may import those on lower floors only. What is on one floor does not know its neighbours.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"demo", "experiment", "survey", "doctor", "dial"},
    {"explain"},
    {"trial", "side", "invitation"},
    {"__init__", "lab", "screen"},
    {"opening", "pipe", "discovery", "wallet"},
    {"link"},
    {"writer", "aim"},
    {"upgrade"},
    {"inquiry"},
    {"connector", "waiting"},
    {"choice", "diagnosis", "truetime"},
    {"lane"},
    {"listener", "clock", "report", "binding", "hairpin", "findings", "outlook"},
    {"kernel", "ticket"},
    {"estimate"},
    {"timeserver", "arguments", "lookout"},
    {"ending"},
    {"conntable", "local_ports", "gateway"},
    {"ntp", "sockets", "liveness", "scheduler", "window", "instant", "stun", "plan"},
    {"nat"},
    {"predict"},
    {"own_ports"},
    {"behaviour"},
    {"flows"},
    {"address", "walk"},
    {"errors", "lazy", "interrupts", "logs"},
    {"wording"},
]
# Annotations only: errors name the report that they carry, and a report the clock's estimate.
FOR_TYPES = {("errors", "report"), ("errors", "diagnosis"), ("report", "clock")}
PURE = {
    "window",
    "instant",
    "report",
    "diagnosis",
    "errors",
    "wording",
    "estimate",
    "ntp",
    "stun",
    "nat",
    "behaviour",
    "own_ports",
    "predict",
    "plan",
    "outlook",
    "walk",
    "ticket",
    "arguments",
    "explain",
    "findings",
    "lab/nat",
    "lab/allocation",
    "lab/chain",
    "lab/packet",
    "lab/router",
    "lab/tracking",
    "lab/figure",
    "lab/core",
    "lab/presets",
    "lab/acts",
}
IMPURE = {"socket", "asyncio", "select", "threading", "subprocess"}
HEAVY = {"ntplib", "uvloop", "rich", "dpkt", "pyroute2", "matplotlib", "cryptography", "aioice", "simopen.lab"}


def floor_of(module: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if module in floor)


def imports_of(path: Path) -> set[str]:
    """The modules named by a file's imports, as far as `simopen.a.b` and `a`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "simopen":
            found |= {f"simopen.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


MODULES = sorted(PACKAGE.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_down(path: Path) -> None:
    ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("simopen.")} - {"__version__"}
    wrong = {name for name in ours if floor_of(name) <= floor_of(path.stem) and (path.stem, name) not in FOR_TYPES}
    assert not wrong, f"{path.stem} imports {wrong}, which is not below it"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("lab/*.py")), ids=lambda path: path.stem)
def test_the_lab_needs_little_of_the_rest(path: Path) -> None:
    ours = {name for name in imports_of(path) if name.startswith("simopen.") and not name.startswith("simopen.lab")}
    assert ours <= {"simopen.errors", "simopen.address", "simopen.lazy"}


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_decides_touches_nothing(name: str) -> None:
    assert not imports_of(PACKAGE / f"{name}.py") & IMPURE


def test_importing_simopen_loads_nothing_heavy() -> None:
    code = "import json, sys, simopen; simopen.connect, simopen.check_clock; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout))


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in simopen.__all__:
        assert getattr(simopen, name).__doc__, name
    assert set(simopen.__all__) <= set(dir(simopen))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        simopen.nosuch  # type: ignore[attr-defined]  # noqa: B018
