"""`simopen lab` as people and scripts use it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from simopen.cli.main import main

LAB = [sys.executable, "-m", "simopen", "lab"]
LIMIT_S = 60
JIFFY_MS = 10  # the kernel's grain at its coarsest


def simopen_lab(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*LAB, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return done.returncode, done.stdout, done.stderr


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """In this process, whose labs are forked from what is loaded: the hosts' programs are processes all the same."""
    status = main(["lab", "--json", *arguments])
    out, said = capsys.readouterr()
    assert not said
    return status, json.loads(out)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--left", "hoem"], "argument --left: 'hoem' is no behaviour of a NAT: do you mean home"),
        (["--right", "home,rest"], "argument --right: 'rest' is no behaviour of a NAT: do you mean reset"),
        (["--delay", "soon"], "argument --delay: 'soon' is no duration"),
        (["--loss", "100%"], "argument --loss: a share is from 0 to below 100%"),
        (["--loss", "-1"], "argument --loss: a share"),
        (["--loss", "some"], "argument --loss: 'some' is no share"),
        (["--runs", "0"], "argument --runs: it must be a number from 1 to 30000"),
        (["--runs", "many"], "argument --runs: it must be a number"),
        (["--window", "0"], "argument --window: it must be longer than zero"),
        (["--plot", "out.txt"], "argument --plot: 'out.txt' names no kind of picture"),
        (["--seed", "x"], "argument --seed"),
        (["--apart", "-1s"], "argument --apart"),
    ],
)
def test_bad_arguments(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["lab", *arguments])
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_the_list_explains_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "--list"]) == 0
    listed = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    for word in ("home", "cgn", "mobile", "corporate", "open", "firewall", "sequential", "hold", "step=N"):
        assert len(listed[word]) > len(word) + 10


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "--list", "--json"]) == 0
    assert "RFC 6888" in json.loads(capsys.readouterr().out)["cgn"]


@pytest.mark.lab
def test_one_run_is_explained_and_drawn(tmp_path: Path) -> None:
    """So far apart that the SYNs cross, however late a busy machine fires one: one SYN is let in, and nothing reset."""
    picture = tmp_path / "out.svg"
    status, out, said = simopen_lab(
        "--left", "home", "--right", "home,reset", "--delay", "150ms", "--plot", str(picture)
    )
    assert status == 0
    assert "connected: " in out
    assert "through its own SYN's socket" in out
    assert "left found: endpoint-independent mapping" in out
    assert "plan: both public endpoints are known" in out
    assert "left's NAT: opened 198.51.100.1:1314, let in 1 SYN" in out
    assert "<CTL=SYN,ACK>" in out
    assert "ESTABLISHED" in out
    assert f"drawn: {picture}" in said
    drawn = "".join(ElementTree.parse(picture).getroot().itertext())
    assert "lets in" in drawn
    assert "3478" not in drawn  # the STUN servers' port


@pytest.mark.lab
@pytest.mark.parametrize(
    ("left", "right", "extra"),
    [
        ("home", "home", []),
        ("open", "open", ["--apart", "200ms"]),
        ("home+cgn", "random,reset", ["--apart", "100ms"]),
        ("cgn", "cgn", ["--seed", "2"]),  # from further addresses of their pools
        ("home", "home,arbitrary,pool=3", []),
        ("firewall", "icmp", ["--apart", "100ms"]),
        ("endpoint-independent/endpoint-independent", "mobile", []),
        ("address-and-port-dependent,sequential", "home", []),
        ("address-and-port-dependent,sequential", "address-and-port-dependent,sequential", ["--apart", "5ms"]),
        ("mobile", "home", ["--spray"]),
    ],
)
def test_pairs_that_connect(left: str, right: str, extra: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, told = as_json(capsys, "--left", left, "--right", right, "--delay", "10ms", *extra)
    assert status == 0
    assert told["summary"]["share"] == 1
    (run,) = told["runs"]
    assert run["connected"]
    assert run["rtt_ms"] >= 20
    # The later side's stream needs its SYN to get there, and an answer to come back; the kernel dates it by jiffies.
    assert max(run["established_ms"].values()) >= 20 - JIFFY_MS
    assert not run["reason"]


@pytest.mark.lab
@pytest.mark.parametrize(
    ("left", "right", "why"),
    [
        ("mobile", "home", ["left's NAT gave 198.51.100.1:", "but right fired at 198.51.100.1:", "; --spray tries"]),
        (
            "mobile",
            "corporate",
            ["left's NAT gave one local port", "right's NAT gave one local port", "for 4 destinations; these two NATs"],
        ),
        ("refuses-syns", "refuses-syns", ["of left's", "none arrived"]),
    ],
)
def test_pairs_that_do_not_connect_say_why(
    left: str, right: str, why: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = as_json(capsys, "--left", left, "--right", right, "--delay", "5ms", "--window", "1s")
    assert status == 1
    assert told["summary"] == {"runs": 1, "connected": 0, "share": 0, "median_ms": None, "p99_ms": None}
    (run,) = told["runs"]
    assert run["refused"] is (run["plan"] is None)
    for words in why:
        assert words in run["reason"]


@pytest.mark.lab
def test_several_runs_are_summed_up() -> None:
    status, out, _ = simopen_lab("--runs", "4", "--delay", "5ms", "--left", "random", "--jitter", "2ms")
    assert status == 0
    assert "4 of 4 connected (100%)" in out
    assert "median" in out
    assert "p99" in out


@pytest.mark.lab
def test_the_same_seed_repeats_the_ports(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--left", "random", "--delay", "2ms", "--seed"]
    ports = [as_json(capsys, *words, seed)[1]["runs"][0]["seen"]["left"] for seed in "778"]
    assert ports[0] == ports[1] != ports[2]


def children_of(pid: int) -> list[str]:
    """Of all its threads: each knows those that it has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for each in lists for child in each.read_text().split()]


@pytest.mark.lab
def test_an_interrupt_ends_it_quietly() -> None:
    with subprocess.Popen(
        [*LAB, "--left", "mobile", "--right", "mobile", "--runs", "3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        while len(found := children_of(process.pid)) < 5:  # what labs are forked from, two sides, two servers
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert said.decode() == "simopen: interrupted; everything is closed\n"
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)
