from __future__ import annotations

import math

import pytest

from simopen.cli.doctor_checks import (
    DESCRIPTORS,
    Check,
    Finding,
    Verdict,
    judge_clock,
    judge_descriptors,
    judge_firewall,
    judge_ipv4,
    judge_ipv6,
    judge_port_sharing,
    judge_simultaneous_open,
    judge_stun,
    summary,
)
from simopen.model.endpoint import Endpoint
from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.nat import Mapping, Profile
from simopen.model.server import Heard
from simopen.model.times import MonoNs, UtcNs

OK, WARN, FAIL, UNKNOWN = Verdict.OK, Verdict.WARN, Verdict.FAIL, Verdict.UNKNOWN
MS = 1_000_000


def estimate(offset_ms: int, bound_ms: int | None, source: Source = Source.NTP) -> Estimate:
    utc_ns = 1_800_000_000 * 1_000_000_000
    bound_ns = None if bound_ms is None else bound_ms * MS
    return Estimate(UtcNs(utc_ns), bound_ns, source, Reading(MonoNs(0), utc_ns - offset_ms * MS, 0))


def kernel(bound_ms: int) -> Estimate:
    return estimate(0, bound_ms, Source.KERNEL)


def told(finding: Finding) -> str:
    """All that a user would read."""
    return " | ".join((finding.found, finding.advice, *finding.notes))


@pytest.mark.parametrize(
    ("by_kernel", "checked", "verdict", "words"),
    [
        (None, estimate(3, 12), OK, ["+0.0030 s ± 12 ms", "| -"]),
        (kernel(5), estimate(3, 12), OK, ["+0.0030 s ± 12 ms", "± 5.0 ms (the kernel's word)"]),
        (kernel(5), "nobody answered", OK, ["the kernel's word", "nobody answered", "| -"]),
        (kernel(500), "nobody answered", WARN, ["install chrony"]),
        (None, "nobody answered", WARN, ["nobody says", "nobody answered", "--ntp", "install chrony"]),
        (None, estimate(-2000, 12), WARN, ["-2.0000 s", "simopen corrects for it"]),
        (None, estimate(101, 12), WARN, ["install chrony"]),
        (None, estimate(99, 12), OK, []),
        (kernel(5), estimate(2000, 12), WARN, ["restart it"]),
        (kernel(500), estimate(2000, 12), WARN, ["simopen corrects for it"]),
        (None, estimate(0, 300), WARN, ["nearer time servers"]),
        (None, estimate(0, None), WARN, ["± unknown"]),
    ],
)
def test_the_clock(by_kernel: Estimate | None, checked: Estimate | str, verdict: Verdict, words: list[str]) -> None:
    finding = judge_clock(by_kernel, checked)
    assert finding.verdict is verdict
    assert [word for word in words if word not in told(finding)] == []


@pytest.mark.parametrize(
    ("connected", "switch", "verdict", "words"),
    [
        (True, None, OK, "| -"),
        (True, "1", OK, "| -"),
        (False, "0", FAIL, "sudo sysctl -w net.ipv4.tcp_simult_connect=1"),
        (False, None, FAIL, "only the listener connects"),
        (False, "1", FAIL, "firewall"),
        ("Network is unreachable", None, UNKNOWN, "Network is unreachable | see that loopback is up"),
        ("Network is unreachable", "0", FAIL, "sysctl"),
    ],
)
def test_simultaneous_open(connected: bool | str, switch: str | None, verdict: Verdict, words: str) -> None:
    finding = judge_simultaneous_open(connected, switch)
    assert finding.verdict is verdict
    assert words in told(finding)


def test_a_port_that_can_be_shared_and_one_that_cannot() -> None:
    assert judge_port_sharing(None).verdict is OK
    refused = judge_port_sharing("another program has it")
    assert refused.verdict is FAIL
    assert "another program has it | " in told(refused)
    assert "SO_REUSEPORT" in refused.advice


@pytest.mark.parametrize(
    ("soft", "hard", "verdict", "words"),
    [
        (math.inf, math.inf, OK, "may have inf"),
        (DESCRIPTORS, DESCRIPTORS, OK, "may have 1,100"),
        (256, math.inf, OK, "take up to inf | -"),
        (1024, 524_288, OK, "may have 1,024, and take up to 524,288"),
        (1024, 1024, WARN, "have root raise the hard limit"),
        (256, DESCRIPTORS - 1, WARN, "only a spray needs 1,100"),
    ],
)
def test_descriptors(soft: float, hard: float, verdict: Verdict, words: str) -> None:
    finding = judge_descriptors(soft, hard)
    assert finding.verdict is verdict
    assert words in told(finding)


def chains(**policies: str) -> str:
    """As nft 1.0 prints them."""
    body = (
        f"\tchain {hook} {{\n\t\ttype filter hook {hook} priority filter; policy {policy};\n\t}}\n"
        for hook, policy in policies.items()
    )
    return f"table inet filter {{\n{''.join(body)}}}\n"


@pytest.mark.parametrize(
    ("nft", "legacy", "services", "verdict", "words"),
    [
        ("", "", [], OK, "drops nothing by policy | -"),
        (chains(input="accept", output="accept"), "", [], OK, "drops nothing by policy"),
        (chains(forward="drop"), "", [], OK, "drops nothing by policy"),
        (chains(input="drop", output="accept"), "", [], OK, "what comes in unasked is dropped"),
        (chains(input="accept", output="drop"), "", [], WARN, "nft list ruleset"),
        (chains(input="drop", output="drop"), "filter", ["ufw"], WARN, "ufw is on; nftables drops what goes out"),
        (chains(input="accept"), "", ["ufw"], OK, "ufw is on; what comes in"),
        ("", "nat\nfilter", [], UNKNOWN, "iptables-legacy -S OUTPUT"),
        ("", "nat", [], OK, "drops nothing by policy"),
        (None, "", [], UNKNOWN, "its rules cannot be read | ask again as root"),
        (None, "", ["firewalld"], UNKNOWN, "firewalld is on; its rules"),
    ],
)
def test_firewalls(nft: str | None, legacy: str, services: list[str], verdict: Verdict, words: str) -> None:
    finding = judge_firewall(nft, legacy, services)
    assert finding.verdict is verdict
    assert words in told(finding)


def test_a_chain_with_a_priority_of_its_own_counts() -> None:
    nft = "\t\ttype filter hook output priority filter - 10; policy drop;\n"
    assert judge_firewall(nft, "", []).verdict is WARN
    two = chains(output="accept") + nft
    assert judge_firewall(two, "", []).verdict is WARN


@pytest.mark.parametrize(
    ("source", "source6", "verdict", "words"),
    [
        ("8.8.8.8", None, OK, "has a route, from 8.8.8.8, a public address"),
        ("192.168.1.2", None, OK, "has a route, from 192.168.1.2, a private address"),
        ("100.64.0.1", None, OK, "a provider's NAT"),
        ("169.254.3.4", None, WARN, "DHCP"),
        (None, "2a00::1", WARN, "IPv6"),
        (None, None, FAIL, "bring the network up"),
    ],
)
def test_ipv4(source: str | None, source6: str | None, verdict: Verdict, words: str) -> None:
    finding = judge_ipv4(source, source6)
    assert finding.verdict is verdict
    assert words in told(finding)


@pytest.mark.parametrize(
    ("source", "source4", "verdict", "words"),
    [
        ("2a00::1", None, OK, "2a00::1, a public address"),
        ("fd00::1", "192.168.1.2", WARN, "which the internet does not reach | ask the provider"),
        ("fe80::1%2", "192.168.1.2", WARN, "fe80::1%2, which the internet does not reach"),
        (None, "192.168.1.2", WARN, "no route to the internet | ask the provider"),
        (None, None, FAIL, "bring the network up"),
    ],
)
def test_ipv6(source: str | None, source4: str | None, verdict: Verdict, words: str) -> None:
    finding = judge_ipv6(source, source4)
    assert finding.verdict is verdict
    assert words in told(finding)


ENDS = (Endpoint("203.0.113.9", 3478), Endpoint("203.0.113.10", 3478))
MAPPED = Endpoint("198.51.100.1", 2314)


@pytest.mark.parametrize(
    ("mapping", "verdict", "words"),
    [
        (Mapping.NONE, OK, "no translation"),
        (Mapping.ENDPOINT_INDEPENDENT, OK, "endpoint-independent mapping, seen as 198.51.100.1:2314 | -"),
        (Mapping.ADDRESS_DEPENDENT, WARN, "address-dependent mapping"),
        (Mapping.ADDRESS_AND_PORT_DEPENDENT, WARN, "symmetric NAT"),
        (Mapping.UNKNOWN, UNKNOWN, "name more STUN servers"),
    ],
)
def test_stun_answers(mapping: Mapping, verdict: Verdict, words: str) -> None:
    finding = judge_stun([3478], ENDS, Profile(mapping, mapped=MAPPED), ["another: it hung up"])
    assert finding.verdict is verdict
    assert finding.notes == ("another: it hung up",)
    assert "2 endpoints answered" in finding.found
    assert words in told(finding)


def test_every_mapping_has_a_verdict() -> None:
    assert [judge_stun([1], ENDS, Profile(each, mapped=MAPPED), []).verdict for each in Mapping]


@pytest.mark.parametrize(
    ("asked", "ports", "verdict"),
    [([3478, 443], [443], WARN), ([443], [443], OK), ([3478, 443], [443, 3478], OK), ([3478], [3478], OK)],
)
def test_a_network_that_lets_only_the_web_out(asked: list[int], ports: list[int], verdict: Verdict) -> None:
    ends = [Endpoint("203.0.113.9", port) for port in ports]
    finding = judge_stun(asked, ends, Profile(Mapping.ENDPOINT_INDEPENDENT, mapped=MAPPED), [])
    assert finding.verdict is verdict
    assert ("port 443" in finding.advice) is (verdict is WARN)
    told = "fit, but: STUN over TCP (only ports of the web answered)" if verdict is WARN else "fit"
    assert summary([finding]) == told


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ([OK, OK], "fit"),
        ([OK, UNKNOWN], "fit"),
        ([WARN, OK, WARN], "fit, but: clock, port sharing"),
        ([WARN, FAIL, FAIL], "not fit: simultaneous open, port sharing"),
    ],
)
def test_the_summary_tells_warnings_too(verdicts: list[Verdict], told: str) -> None:
    assert summary([Finding(check, verdict, "") for check, verdict in zip(Check, verdicts, strict=False)]) == told


@pytest.mark.parametrize(
    ("asked", "heard", "found", "advice"),
    [
        (2, [Heard.PORTAL, Heard.NOTHING], "none of 2", "log in"),
        (1, [Heard.NOTHING], "the server did not answer", "does a firewall"),
        (2, [Heard.NO_NAME, Heard.NO_NAME_YET], "none of 2", "resolv.conf"),
        (2, [Heard.NO_NAME, Heard.NOTHING], "none of 2 servers answered", "does a firewall"),
        (2, [Heard.NO_WAY, Heard.NO_WAY], "none of 2 servers answered", "see that the network is up"),
        (1, [Heard.NO_WAY], "the server did not answer", "see that the network is up"),
        (2, [Heard.NO_WAY, Heard.NOTHING], "none of 2 servers answered", "does a firewall"),
        # Who answers what cannot be used does answer.
        (1, [Heard.UNUSABLE], "the server did not tell this host's mapping", "what came back"),
        (2, [Heard.NOTHING, Heard.UNUSABLE], "none of 2 servers told", "what came back"),
    ],
)
def test_no_stun_answer(asked: int, heard: list[Heard], found: str, advice: str) -> None:
    why = "a: whatever the servers' words are, nothing is decided by them: captive portal, no answer within"
    finding = judge_stun([3478] * asked, (), None, [why], heard)
    assert finding.verdict is FAIL
    assert finding.notes == (why,)
    assert found in finding.found
    assert advice in finding.advice
