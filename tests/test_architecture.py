"""The house keeps its shape: rooms in one order, no circle between files, heavy things load late, what decides is pure.

All is computed from the code: imports for annotations alone and those inside functions count like any other.
"""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import simopen

PACKAGE = Path(simopen.__file__).parent
EXAMPLES = PACKAGE.parent / "examples"
ROOMS = (
    "_lazy",
    "_logs",
    "model",
    "errors",
    "net",
    "clock",
    "portmap",
    "nat",
    "link",
    "ticket",
    "holepunch",
    "signalling",
    "rendezvous",
    "apps",
    "simopen",  # `__init__.py`: the public names
    "http",  # and those that need the extra of that name
    "lab",
    "cli",
    "__main__",
)
"""Each imports from those before it and from itself."""
LAB_ROOMS = ("packet", "nat", "net", "host", "process", "network", "pytest_plugin", "lab", "draw", "trial")
"""The same within the lab."""
MODELS = ("lab.packet", "lab.nat", "lab.net")
"""They serve simulators, too, and need of the rest only values and errors."""
PURE = (
    "errors",
    "model.estimate",
    "model.event",
    "model.nat",
    "model.outcome",
    "model.report",
    "model.server",
    "model.shot",
    "model.times",
    "model.wording",
    "clock.instant",
    "clock.ntp",
    "clock.selection",
    "nat.classify",
    "nat.filtering",
    "nat.observations",
    "nat.own_ports",
    "nat.patience",
    "nat.port_forecast",
    "nat.port_sequence",
    "nat.predict",
    "nat.stun",
    "nat.stun_answer",
    "ticket.agreement",
    "ticket.codec",
    "holepunch.budget",
    "link.channel",
    "link.contexts",
    "link.frames",
    "link.keys",
    "link.nonces",
    "link.session",
    "holepunch.diagnosis",
    "holepunch.engine",
    "holepunch.engine_events",
    "holepunch.nomination",
    "holepunch.pair",
    "holepunch.plan",
    "holepunch.prospects",
    "holepunch.retry",
    "holepunch.strategies",
    "holepunch.unproven",
    "rendezvous.exchange",
    "rendezvous.pake",
    "rendezvous.peer_clock",
    "rendezvous.sealing",
    "signalling.base",
    "signalling.hashcash",
    "signalling.mailbox_session",
    "signalling.nats_hello",
    "signalling.server_conversation",
    "signalling.server_limits",
    "signalling.server_messages",
    "signalling.server_rooms",
    "cli.arguments",
    "cli.doctor_checks",
    "lab.draw.nat_actions",
    "lab.draw.text_diagram",
    "lab.nat",
    "lab.net.core",
    "lab.net.linux_router",
    "lab.packet",
    "lab.trial.explain",
)
"""Modules, or all of a room's."""
LONGEST = 400
"""Lines of a module; a longer one's reason stands in CONTRIBUTING.md."""
TESTS = Path(__file__).parent
CONTRIBUTING = TESTS.parent / "CONTRIBUTING.md"
SCENARIOS = {
    "apps/http/test_broken_anywhere": "HTTP over streams that break after each byte of a request or its answer",
    "apps/http/test_one_stream": "what requests are told once the one stream of their transport has ended",
    "apps/http/test_over_session": "HTTP over a session whose streams are cut",
    "apps/transfer/test_full_disk": "a transfer onto a disk that becomes full meanwhile",
    "cli/test_meet_in_lab": "`simopen meet` with wrong clocks, where it sprays, and where it is killed, in the lab",
    "cli/test_send_in_lab": "`simopen send` and `receive` behind two NATs",
    "cli/test_two_sides": "two `simopen connect` and their stream, whoever ends it",
    "cli/test_usage": "what is typed wrongly, of every command",
    "clock/test_wrong_clock": "a machine whose clock is wrong, from the command line down",
    "holepunch/test_by_ticket": "two tickets exchanged, and a stream",
    "holepunch/test_diagnosis_in_lab": "punches that fail in the lab, and what is said of each",
    "holepunch/test_misled": "a hostile peer that names somebody else",
    "holepunch/test_plan_in_lab": "discovery, plan and punch behind each pair of NATs, in the lab",
    "holepunch/test_punching": "punches through modelled NATs, in the lab",
    "holepunch/test_punching_real_routers": "punches through Linux routers, in the lab",
    "holepunch/test_transients": "shortages that pass while a punch is under way",
    "lab/host/test_real_routers": "Linux routers against their models",
    "lab/nat/test_translator_sequences": "ports in a row, as the allocation and the translator make them together",
    "lab/process/test_cleanup": "nothing of a lab is left, however its owner ends",
    "lab/process/test_descriptors": "a lab with few descriptors",
    "lab/test_lab_command": "`simopen lab`",
    "signalling/test_contract": "what a meeting may rely on, at each rendezvous",
    "rendezvous/test_session_in_lab": "a session whose network is gone for a while, in the lab",
    "rendezvous/test_meeting_in_lab": "meetings by a code behind modelled NATs, in the lab",
    "rendezvous/test_rounds_in_lab": "a meeting's second and third round, in the lab",
    "rendezvous/test_hostile_peer_in_lab": "a peer that knows the code and names victims, in the lab",
    "signalling/test_wormhole": "magic-wormhole's own client through our server",
    "nat/test_coturn": "discovery by a real STUN server",
    "nat/test_discovery_in_lab": "discovery behind modelled NATs, in the lab",
}
"""Tests of several modules together, in the room of the uppermost, and what they are of."""
IMPURE = {"socket", "asyncio", "select", "threading", "subprocess"}
HEAVY = {
    "ntplib",
    "uvloop",
    "rich",
    "dpkt",
    "pyroute2",
    "matplotlib",
    "cryptography",
    "aioice",
    "simopen.lab",
    "httpx2",
    "uvicorn",
    "websockets",
    "spake2",
    "platformdirs",
    "segno",
}


def name_of(path: Path) -> str:
    """`net.sockets` for simopen/net/sockets.py; a package's `__init__.py` has the package's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "simopen"


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(path: Path) -> set[str]:
    """What a file imports: ours by their names in `FILES`, others by their package's."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {_in_files(name) if name.partition(".")[0] == "simopen" else name.partition(".")[0] for name in found}


def _in_files(name: str) -> str:
    """The file that `simopen.a.b.C` is from."""
    ours = name.removeprefix("simopen").removeprefix(".")
    return ours if ours in FILES else ours.rpartition(".")[0] or "simopen"


@functools.cache  # each of pytest's processes collects this file, and few look into all of these
def imports(name: str) -> frozenset[str]:
    """What one of `FILES` imports, as `imports_of` has it."""
    return frozenset(imports_of(FILES[name]) - {name})


def ours(name: str) -> set[str]:
    """Those of them that are files of ours."""
    return {each for each in imports(name) if each in FILES}


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def room(name: str) -> int:
    return ROOMS.index(name.partition(".")[0])


def lab_room(name: str) -> int:
    return LAB_ROOMS.index((name.removeprefix("lab.")).partition(".")[0])


def is_model(name: str) -> bool:
    return any(f"{name}.".startswith(f"{each}.") for each in MODELS)


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"simopen"}))
def test_imports_point_one_way(name: str) -> None:
    wrong = {each for each in ours(name) if room(each) > room(name)}
    assert not wrong, f"{name} imports {wrong}, from a room that comes after its own"
    if name.startswith("lab."):
        within = {each for each in ours(name) if each.partition(".")[0] == "lab" and lab_room(each) > lab_room(name)}
        assert not within, f"{name} imports {within}, from a room of the lab that comes after its own"


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({name: ours(name) for name in FILES}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_only_the_command_line_imports_the_lab() -> None:
    outside = {name for name in FILES if name.partition(".")[0] not in ("lab", "cli")}
    assert not [name for name in outside if any(each.partition(".")[0] == "lab" for each in ours(name))]


@pytest.mark.parametrize("name", sorted(filter(is_model, FILES)))
def test_the_labs_models_need_values_and_errors_only(name: str) -> None:
    outside = {each for each in ours(name) if not is_model(each)}
    assert all(each == "errors" or each.startswith("model.") for each in outside), outside


@pytest.mark.parametrize("name", [name for name in FILES if name in PURE or name.rpartition(".")[0] in PURE])
def test_what_decides_touches_nothing(name: str) -> None:
    assert not imports(name) & IMPURE


def test_what_is_said_to_be_pure_is_there() -> None:
    assert set(PURE) <= set(FILES)


@pytest.mark.parametrize("room", sorted({path.parent.relative_to(PACKAGE) for path in FILES.values()}), ids=str)
def test_a_modules_tests_stand_where_it_does(room: Path) -> None:
    tests = {path.stem.removeprefix("test_") for path in (TESTS / room).glob("test_*.py")}
    scenarios = {Path(name).name for name in SCENARIOS if Path(name).parent == room}
    modules = {path.stem for path in (PACKAGE / room).glob("*.py")}
    if room != Path():  # what is of no room stands beside the rooms' folders
        assert not tests - modules - {name.removeprefix("test_") for name in scenarios}, "neither mirrored nor named"


def test_scenarios_that_are_named_are_there() -> None:
    assert not [name for name in SCENARIOS if not (TESTS / f"{name}.py").exists()]


def test_a_long_module_has_its_reason() -> None:
    if not CONTRIBUTING.exists():
        pytest.skip("there is no CONTRIBUTING.md")
    reasons = CONTRIBUTING.read_text()
    long = {path.relative_to(PACKAGE).as_posix() for path in FILES.values() if lines_of(path) > LONGEST}
    assert not [name for name in sorted(long) if name not in reasons], "cut them, or say why in CONTRIBUTING.md"


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


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_needs_nothing_but_the_public_face(path: Path) -> None:
    assert {name for name in imports_of(path) if name in FILES} <= {"simopen", "lab", "http"}
