"""The pure core: delay, order, loss, hops and verdicts, on a clock that the tests turn by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.lab.nat.model import Nat, Unsolicited
from simopen.lab.net.conditions import MOST_HOSTS, Addresses, Conditions, addresses_of, router_address
from simopen.lab.net.core import Core
from simopen.lab.net.record import Origin, Verdict
from simopen.lab.net.wire import parse, time_exceeded_for
from simopen.lab.packet import Flags
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Filtering, Mapping, Pooling
from tests.lab.packets import checksums_hold, echo, tcp, udp

MS = 1_000_000


@dataclass
class Net:
    core: Core
    left: Addresses
    right: Addresses

    def send(self, now_ns: int = 0, *, v6: bool = False, number: int = 0, ttl: int = 64) -> None:
        ends = (self.left.private6, self.right.public6) if v6 else (self.left.private, self.right.public)
        self.core.offer("left", udp((ends[0], 1), (ends[1], 2), b"%d" % number, ttl), now_ns)

    def verdicts(self) -> list[Verdict]:
        return [passage.verdict for passage in self.core.passages()]

    def arrivals(self, until_ns: int = 10**12) -> list[tuple[int, str, bytes]]:
        """What arrives, and when, each packet handed over exactly when it is due."""
        found = []
        while (due_ns := self.core.due_ns) is not None and due_ns <= until_ns:
            arrival = self.core.take_due(due_ns)
            if arrival is not None:
                found.append((due_ns, arrival.host, arrival.data))
        return found


def net(left: Conditions | None = None, right: Conditions | None = None, seed: int = 1) -> Net:
    core, found = Core(seed), []
    for number, (name, conditions) in enumerate([("left", left), ("right", right)], 1):
        conditions = conditions or Conditions()  # noqa: PLW2901
        found.append(addresses_of(number, conditions.nats))
        core.attach(name, conditions, found[-1])
    return Net(core, *found)


@pytest.mark.parametrize("v6", [False, True])
def test_the_delay_is_the_sum_of_both_accesses(v6: bool) -> None:
    it = net(Conditions(delay_s=0.020), Conditions(delay_s=0.005))
    it.send(7, v6=v6)
    assert it.core.take_due(25 * MS + 6) is None
    (arrival,) = it.arrivals()
    assert arrival[:2] == (25 * MS + 7, "right")


def test_the_record_has_both_times_and_both_packets() -> None:
    it = net(Conditions(delay_s=0.020, nat=Nat()))
    it.send(3)
    assert it.verdicts() == [Verdict.IN_FLIGHT]
    it.arrivals()
    (passage,) = it.core.passages()
    assert (passage.sent_ns, passage.received_ns) == (3, 20 * MS + 3)
    assert (passage.source, passage.destination, passage.origin) == ("left", "right", Origin.HOST)
    assert passage.received is not None
    assert (passage.sent.source.address, passage.received.source.address) == (it.left.private, it.left.public)
    assert (passage.sent.ttl, passage.received.ttl) == (64, 58)


@given(st.integers(0, 2**32))
def test_jitter_keeps_the_order_and_its_bounds(seed: int) -> None:
    it = net(Conditions(delay_s=0.010, jitter_s=0.010), Conditions(jitter_s=0.005), seed=seed)
    for number in range(50):
        it.send(number * MS, number=number)
    arrivals = it.arrivals()
    assert [int(data[28:]) for _, _, data in arrivals] == list(range(50))
    waits = [due_ns - number * MS for number, (due_ns, _, _) in enumerate(arrivals)]
    assert all(10 * MS <= wait <= 25 * MS for wait in waits)


def test_jitter_reorders_where_it_is_asked_to() -> None:
    it = net(Conditions(jitter_s=0.010, reorder=True))
    for number in range(50):
        it.send(0, number=number)
    assert [int(data[28:]) for _, _, data in it.arrivals()] != list(range(50))


@pytest.mark.parametrize(("left", "right"), [(1.0, 0.0), (0.0, 1.0)])
def test_either_access_can_lose_everything(left: float, right: float) -> None:
    it = net(Conditions(loss=left), Conditions(loss=right))
    for _ in range(20):
        it.send()
    assert it.arrivals() == []
    assert it.verdicts() == [Verdict.LOST] * 20


def test_loss_adds_up_and_repeats_with_the_seed() -> None:
    def fates(seed: int) -> list[Verdict]:
        it = net(Conditions(loss=0.2), Conditions(loss=0.5), seed=seed)
        for _ in range(2000):
            it.send()
        it.arrivals()
        return it.verdicts()

    assert fates(1) == fates(1) != fates(2)
    assert 0.56 < fates(1).count(Verdict.LOST) / 2000 < 0.64  # 1 − 0.8 × 0.5, give or take four deviations


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize(("ttl", "delay_ms"), [(1, 20), (2, 40), (3, 45), (4, 50)])
def test_a_packet_that_runs_out_of_hops_is_answered_by_that_router(v6: bool, ttl: int, delay_ms: int) -> None:
    it = net(Conditions(delay_s=0.020, hops=2, nat=Nat()), Conditions(delay_s=0.005, hops=2))
    it.send(ttl=ttl, v6=v6)
    ((due_ns, host, data),) = it.arrivals()
    error = parse(data)
    assert (due_ns, host) == (delay_ms * MS, "left")
    assert error.source.address == router_address(ttl, ipv6=v6)
    assert error.headers.quoted is not None
    assert error.headers.quoted.source == Endpoint(it.left.private6 if v6 else it.left.private, 1)
    assert it.verdicts() == [Verdict.EXPIRED, Verdict.DELIVERED]


def test_one_hop_more_than_the_path_has_arrives() -> None:
    it = net(Conditions(hops=2), Conditions(hops=2))
    it.send(ttl=5)
    ((_, host, data),) = it.arrivals()
    assert (host, parse(data).ttl) == ("right", 1)


@pytest.mark.parametrize("target", ["203.0.113.200", "192.168.2.2", "198.51.100.1", "2001:db8:99::1"])
def test_what_nobody_has_goes_nowhere(target: str) -> None:
    it = net(right=Conditions(nat=Nat()))
    source = it.left.private6 if ":" in target else it.left.private
    it.core.offer("left", udp((source, 1), (target, 2)), 0)
    assert it.arrivals() == []
    assert it.verdicts() == [Verdict.UNROUTABLE]


def test_a_forged_source_is_filtered() -> None:
    it = net()
    it.core.offer("left", udp(("10.9.9.9", 1), (it.right.public, 2)), 0)
    assert (it.arrivals(), it.verdicts()) == ([], [Verdict.FILTERED])


def test_noise_and_nonsense_are_not_recorded() -> None:
    it = net()
    for data in (b"", b"\x00" * 30, b"\x45", udp((it.left.private, 1), ("224.0.0.1", 2))):
        it.core.offer("left", data, 0)
    assert it.verdicts() == []


def test_a_nat_drops_what_nobody_asked_for() -> None:
    it = net(Conditions(delay_s=0.010), Conditions(nat=Nat()))
    it.core.offer("left", tcp((it.left.private, 1), (it.right.public, 2)), 0)
    assert (it.arrivals(), it.verdicts()) == ([], [Verdict.FILTERED])


def test_a_nat_resets_what_nobody_asked_for() -> None:
    it = net(Conditions(delay_s=0.010), Conditions(nat=Nat(unsolicited=Unsolicited.RESET)))
    it.core.offer("left", tcp((it.left.private, 1), (it.right.public, 2), seq=41), 0)
    ((due_ns, host, data),) = it.arrivals()
    reset = parse(data)
    assert (due_ns, host) == (20 * MS, "left")
    assert (reset.source, reset.destination) == (Endpoint(it.right.public, 2), Endpoint(it.left.public, 1))
    assert (reset.ack, reset.flags) == (42, Flags.RST | Flags.ACK)
    assert it.verdicts() == [Verdict.RESET, Verdict.DELIVERED]
    assert [passage.origin for passage in it.core.passages()] == [Origin.HOST, Origin.NAT]


ACCEPTING = Nat(unsolicited=Unsolicited.ACCEPT)


def test_a_nat_that_accepts_answers_a_ping() -> None:
    it = net(Conditions(delay_s=0.010, nat=Nat()), Conditions(nat=ACCEPTING))
    it.core.offer("left", echo(8, it.left.private, it.right.public, 77), 0)
    ((due_ns, host, data),) = it.arrivals()
    assert (due_ns, host) == (20 * MS, "left")
    assert data[-9:] == echo(0, it.right.public, it.left.private, 77)[-9:]
    assert parse(data).headers == parse(echo(0, it.right.public, it.left.private, 77)).headers
    assert checksums_hold(data)
    assert it.verdicts() == [Verdict.ACCEPTED, Verdict.DELIVERED]


def test_an_echo_reply_is_answered_by_nobody() -> None:
    it = net(Conditions(), Conditions(nat=ACCEPTING))
    it.core.offer("left", echo(0, it.left.private, it.right.public, 77), 0)
    assert (it.arrivals(), it.verdicts()) == ([], [Verdict.ACCEPTED])


@pytest.mark.parametrize("hairpinning", [False, True])
def test_a_host_may_ping_its_own_nat_where_that_hairpins(hairpinning: bool) -> None:
    it = net(Conditions(nat=replace(ACCEPTING, hairpinning=hairpinning)))
    it.core.offer("left", echo(8, it.left.private, it.left.public, 77), 0)
    assert [host for _, host, _ in it.arrivals()] == ["left"] * hairpinning


@pytest.mark.parametrize("seq", [5001, 99_999_999])
@pytest.mark.parametrize("nats", [Nat(tracking=True), (Nat(tracking=True), Nat()), (Nat(), Nat(tracking=True))])
def test_a_nat_that_tracks_refuses_a_stray_reset(nats: Nat | tuple[Nat, ...], seq: int) -> None:
    it = net(Conditions(nat=nats))
    left, right, public = (it.left.private, 1), (it.right.private, 2), (it.left.public, 1)
    segments = [
        ("left", tcp(left, right)),
        ("right", tcp(right, public, 0x12, seq=5000, ack=1001)),
        ("left", tcp(left, right, 0x10, seq=1001, ack=5001)),
        ("right", tcp(right, public, 0x04, seq=seq)),
    ]
    arrived = []
    for now_ns, (host, data) in enumerate(segments):
        it.core.offer(host, data, now_ns)
        arrived += it.arrivals()
    assert len(arrived) == 3 + (seq == 5001)


def test_two_syns_that_cross_open_both_nats() -> None:
    nat = Nat(unsolicited=Unsolicited.RESET)
    it = net(Conditions(delay_s=0.010, nat=nat), Conditions(delay_s=0.010, nat=nat))
    it.core.offer("left", tcp((it.left.private, 1314), (it.right.public, 1314)), 0)
    it.core.offer("right", tcp((it.right.private, 1314), (it.left.public, 1314)), 5 * MS)
    assert [(due_ns, host) for due_ns, host, _ in it.arrivals()] == [(20 * MS, "right"), (25 * MS, "left")]


HOLDING = Nat(unsolicited=Unsolicited.HOLD)
LAX = Filtering.ENDPOINT_INDEPENDENT


def shoot(it: Net, now_ns: int, back: bool = False) -> None:
    """A SYN from left to right, or `back`, between the ports 1314."""
    names = (("right", it.right.private, it.left.public), ("left", it.left.private, it.right.public))
    name, source, destination = names[not back]
    it.core.offer(name, tcp((source, 1314), (destination, 1314), seq=41), now_ns)


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("make", [tcp, udp])
def test_a_nat_answers_with_port_unreachable(v6: bool, make: Callable[..., bytes]) -> None:
    it = net(Conditions(delay_s=0.010, nat=Nat()), Conditions(nat=Nat(unsolicited=Unsolicited.ICMP)))
    source, destination = (it.left.private6, it.right.public6) if v6 else (it.left.private, it.right.public)
    it.core.offer("left", make((source, 1), (destination, 2)), 0)
    ((due_ns, host, data),) = it.arrivals()
    error = parse(data)
    assert (due_ns, host, error.source.address) == (20 * MS, "left", destination)
    assert error.headers.quoted is not None
    assert (error.headers.quoted.source, error.headers.quoted.destination) == ((source, 1), (destination, 2))
    assert data[20:22] == b"\x03\x03" or data[40:42] == b"\x01\x04"  # RFC 792; RFC 4443 §3.1
    assert checksums_hold(data)
    assert it.verdicts() == [Verdict.REFUSED_ICMP, Verdict.DELIVERED]


def test_a_held_syn_is_answered_after_six_seconds() -> None:
    it = net(Conditions(delay_s=0.010), Conditions(nat=HOLDING))
    shoot(it, 0)
    assert it.arrivals(5 * 10**9) == []
    assert it.verdicts() == [Verdict.HELD]
    assert it.core.due_ns == 6 * 10**9 + 10 * MS
    ((due_ns, host, data),) = it.arrivals()
    assert (due_ns, host) == (6 * 10**9 + 20 * MS, "left")
    assert parse(data).headers.quoted is not None
    assert it.verdicts() == [Verdict.REFUSED_ICMP, Verdict.DELIVERED]


def test_a_held_syn_is_forgotten_where_one_goes_out_meanwhile() -> None:
    it = net(Conditions(delay_s=0.010), Conditions(nat=HOLDING))
    shoot(it, 0)
    assert it.arrivals(5 * 10**9) == []
    shoot(it, 5 * 10**9, back=True)
    assert [(due_ns, host) for due_ns, host, _ in it.arrivals()] == [(5 * 10**9 + 10 * MS, "left")]
    assert it.verdicts() == [Verdict.HELD, Verdict.DELIVERED]


@pytest.mark.parametrize(
    ("home", "carrier", "decider", "verdict"),
    [
        (Nat(), Nat(unsolicited=Unsolicited.RESET), "right/1", Verdict.RESET),
        (Nat(unsolicited=Unsolicited.RESET), Nat(filtering=LAX), "right/0", Verdict.RESET),
        (Nat(unsolicited=Unsolicited.ICMP), Nat(filtering=LAX), "right/0", Verdict.REFUSED_ICMP),
        (HOLDING, Nat(filtering=LAX), "right/0", Verdict.REFUSED_ICMP),
        (Nat(), Nat(filtering=LAX), "right/0", Verdict.FILTERED),
        (Nat(filtering=LAX), Nat(), "right/1", Verdict.FILTERED),
    ],
)
def test_of_nats_in_a_row_the_record_names_the_one_that_refused(
    home: Nat, carrier: Nat, decider: str, verdict: Verdict
) -> None:
    """What it answers comes from the outermost address, whoever answered."""
    it = net(Conditions(delay_s=0.010), Conditions(nat=(home, carrier)))
    it.core.offer("right", tcp((it.right.private, 1314), ("203.0.113.99", 1314)), 0)
    it.core.forget_passages()
    shoot(it, MS)
    answers = [parse(data) for _, _, data in it.arrivals()]
    refused, *answered = it.core.passages()
    assert (refused.decided_by, refused.verdict) == (decider, verdict)
    assert [passage.origin for passage in answered] == [Origin.NAT] * (verdict is not Verdict.FILTERED)
    assert all(passage.decided_by == "" for passage in answered)
    assert all(answer.source.address == it.right.public for answer in answers)
    assert len(answers) == len(answered)


def test_syns_that_cross_open_all_nats_of_two_homes_behind_carriers() -> None:
    carried = Conditions(delay_s=0.010, nat=(Nat(), Nat(unsolicited=Unsolicited.RESET)))
    it = net(carried, carried)
    assert (it.left.private, it.left.pools) == ("192.168.1.2", (("100.64.1.1",), ("198.51.100.1",)))
    shoot(it, 0)
    shoot(it, 5 * MS, back=True)
    assert [(due_ns, host) for due_ns, host, _ in it.arrivals()] == [(20 * MS, "right"), (25 * MS, "left")]


def beside(nat: Nat | None, *, isolated: bool = False) -> Net:
    """Right is on left's LAN."""
    core, conditions = Core(1), Conditions(delay_s=0.010, nat=nat, isolated=isolated)
    left = addresses_of(1, conditions.nats)
    right = addresses_of(2, conditions.nats, lan=1)
    core.attach("left", conditions, left)
    core.attach("right", conditions, right, "left")
    return Net(core, left, right)


@pytest.mark.parametrize("nat", [None, Nat(), Nat(translates=False)])
@pytest.mark.parametrize("v6", [False, True])
def test_hosts_on_one_lan_reach_each_other_directly(nat: Nat | None, v6: bool) -> None:
    it = beside(nat)
    source, destination = (it.left.private6, it.right.private6) if v6 else (it.left.private, it.right.private)
    packet = udp((source, 1), (destination, 2))
    it.core.offer("left", packet, 7)
    assert it.arrivals() == [(7, "right", packet)]
    (passage,) = it.core.passages()
    assert (passage.destination, passage.verdict) == ("right", Verdict.DELIVERED)


@pytest.mark.parametrize("v6", [False, True])
def test_hosts_that_are_kept_apart_meet_by_way_of_their_nat_alone(v6: bool) -> None:
    it = beside(Nat(filtering=LAX, hairpinning=True), isolated=True)
    source, destination = (it.left.private6, it.right.private6) if v6 else (it.left.private, it.right.private)
    it.core.offer("left", udp((source, 1), (destination, 2)), 7)
    assert it.arrivals() == []
    assert [passage.verdict for passage in it.core.passages()] == [Verdict.FILTERED]
    it.core.offer("right", udp((it.right.private, 5), ("203.0.113.99", 6)), 8)
    it.core.offer("left", udp((it.left.private, 7), (it.right.public, 5)), 9)
    assert [host for _, host, _ in it.arrivals()] == ["right"]


def test_hosts_behind_one_nat_share_its_address_and_get_their_own_answers() -> None:
    it = beside(Nat())
    assert it.left.public == it.right.public
    assert it.left.private != it.right.private
    it.core.attach("peer", Conditions(), peer := addresses_of(3))
    for name, own in (("left", it.left), ("right", it.right)):
        it.core.offer(name, udp((own.private, 5), (peer.public, 6)), 0)
    seen = [parse(data).source for _, _, data in it.arrivals()]
    assert len(set(seen)) == 2
    for public in seen:
        it.core.offer("peer", udp((peer.private, 6), public), 20 * MS)
    assert [host for _, host, _ in it.arrivals()] == ["left", "right"]
    assert [passage.destination for passage in it.core.passages()[2:]] == ["left", "right"]


@pytest.mark.parametrize("hairpins", [False, True])
def test_hosts_behind_one_nat_meet_by_its_address_only_where_it_hairpins(hairpins: bool) -> None:
    it = beside(Nat(filtering=LAX, hairpinning=hairpins))
    it.core.offer("right", udp((it.right.private, 5), ("203.0.113.99", 6)), 0)
    it.core.forget_passages()
    it.core.offer("left", udp((it.left.private, 7), (it.right.public, 5)), 1)
    arrivals = it.arrivals()
    (passage,) = it.core.passages()
    if hairpins:
        ((due_ns, host, data),) = arrivals
        assert (due_ns, host) == (1, "right")
        assert (parse(data).source, parse(data).destination) == ((it.left.public, 7), (it.right.private, 5))
        assert (passage.verdict, passage.decided_by) == (Verdict.DELIVERED, "")
    else:
        assert arrivals == []
        assert (passage.verdict, passage.decided_by) == (Verdict.FILTERED, "left/0")


def test_a_refused_hairpin_is_answered_inside() -> None:
    it = beside(Nat(hairpinning=True, unsolicited=Unsolicited.RESET))
    it.core.offer("left", tcp((it.left.private, 7), (it.right.public, 5)), 1)
    ((due_ns, host, data),) = it.arrivals()
    assert (due_ns, host, parse(data).flags) == (1, "left", Flags.RST | Flags.ACK)
    assert parse(data).source == (it.right.public, 5)


def test_a_pool_is_reached_by_each_of_its_addresses() -> None:
    nat = Nat(Mapping.ADDRESS_AND_PORT_DEPENDENT, pool=3, pooling=Pooling.ARBITRARY)
    it = net(Conditions(nat=nat))
    for port in range(1, 31):
        it.core.offer("left", udp((it.left.private, 5), (it.right.public, port)), 0)
    seen = {parse(data).source for _, _, data in it.arrivals()}
    assert {public.address for public in seen} == set(it.left.pools[0])
    for passage in it.core.passages():
        assert passage.received is not None
        ends = passage.received.destination, passage.received.source
        it.core.offer("right", udp(*ends), 1)
    assert [host for _, host, _ in it.arrivals()] == ["left"] * 30


@pytest.mark.parametrize(("left", "right", "copies"), [(0.0, 0.0, 1), (1.0, 0.0, 2), (0.0, 1.0, 2), (1.0, 1.0, 3)])
def test_a_packet_is_followed_by_its_copies(left: float, right: float, copies: int) -> None:
    it = net(Conditions(delay_s=0.010, jitter_s=0.005, duplicate=left), Conditions(duplicate=right))
    it.send()
    it.send(MS)
    arrivals = it.arrivals()
    assert len(arrivals) == 2 * copies
    assert {data for _, _, data in arrivals[:copies]} == {arrivals[0][2]}
    assert it.verdicts() == [Verdict.DELIVERED] * len(arrivals)
    origins = [passage.origin for passage in it.core.passages()]
    assert origins == ([Origin.HOST] + [Origin.CORE] * (copies - 1)) * 2


def test_copies_are_made_of_their_share_and_repeat_with_the_seed() -> None:
    def copies(seed: int) -> list[Origin]:
        it = net(Conditions(duplicate=0.3), seed=seed)
        for _ in range(2000):
            it.send()
        return [passage.origin for passage in it.core.passages()]

    assert copies(1) == copies(1) != copies(2)
    assert 0.26 < copies(1).count(Origin.CORE) / 2000 < 0.34  # give or take four deviations


KBPS = 1000.0
SIZE = 29  # bytes of what `Net.send` sends


@pytest.mark.parametrize(("left", "right"), [(SIZE * 8 * KBPS, None), (None, SIZE * 8 * KBPS)])
def test_packets_take_their_time_one_after_the_other(left: float | None, right: float | None) -> None:
    """A thousand packets a second: one each ms, whichever access is the narrow one."""
    it = net(Conditions(delay_s=0.010, bandwidth_bps=left), Conditions(bandwidth_bps=right))
    for number in range(3):
        it.send(0, number=number)
    it.send(50 * MS, number=3)
    assert [(due_ns, data[-1:]) for due_ns, _, data in it.arrivals()] == [
        (11 * MS, b"0"),
        (12 * MS, b"1"),
        (13 * MS, b"2"),
        (61 * MS, b"3"),
    ]


def test_the_two_directions_do_not_wait_for_each_other() -> None:
    it = net(Conditions(bandwidth_bps=SIZE * 8 * KBPS))
    it.send(0)
    it.core.offer("right", udp((it.right.private, 1), (it.left.public, 2), b"0"), 0)
    assert [(due_ns, host) for due_ns, host, _ in it.arrivals()] == [(MS, "right"), (MS, "left")]


@pytest.mark.parametrize("narrow", ["left", "right"])
def test_the_end_of_a_full_queue_is_lost(narrow: str) -> None:
    """A tenth of a second may wait, and the packet under way."""
    tight, wide = Conditions(bandwidth_bps=SIZE * 8 * KBPS), Conditions()
    it = net(*((tight, wide) if narrow == "left" else (wide, tight)))
    for _ in range(150):
        it.send()
    assert len(it.arrivals()) == 101
    assert it.verdicts() == [Verdict.DELIVERED] * 101 + [Verdict.LOST] * 49


def test_the_slowest_link_still_takes_one_packet() -> None:
    it = net(Conditions(bandwidth_bps=1.0))
    it.send()
    it.send()
    ((due_ns, _, _),) = it.arrivals()
    assert due_ns == SIZE * 8 * 10**9
    assert it.verdicts() == [Verdict.DELIVERED, Verdict.LOST]


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 200))
def test_a_link_never_carries_more_than_its_bandwidth(waits_ms: list[int], kbps: int) -> None:
    narrow = Conditions(delay_s=0.003, jitter_s=0.002, bandwidth_bps=kbps * KBPS)
    it = net(narrow, narrow)
    for now_ms in accumulate(waits_ms):
        it.send(now_ms * MS)
    arrivals = [due_ns for due_ns, _, _ in it.arrivals()]
    each_ns = round(SIZE * 8e6 / kbps)
    assert all(later - earlier >= each_ns for earlier, later in pairwise(arrivals))
    assert len(arrivals) + it.verdicts().count(Verdict.LOST) == len(waits_ms)


def test_a_record_begun_anew_forgets_what_is_under_way() -> None:
    it = net(Conditions(delay_s=0.010))
    it.send()
    it.core.forget_passages()
    assert len(it.arrivals()) == 1
    assert it.verdicts() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delay_s", -1),
        ("jitter_s", -0.1),
        ("loss", 1.1),
        ("loss", -0.1),
        ("hops", -1),
        ("hops", 121),
        ("duplicate", -0.1),
        ("duplicate", 1.1),
        ("bandwidth_bps", 0),
        ("bandwidth_bps", -1),
    ],
)
def test_conditions_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=str(value)):
        Conditions(**{name: value})  # type: ignore[arg-type]


def test_more_nats_in_a_row_than_the_carriers_network_has_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 8"):
        Conditions(nat=(Nat(),) * 9)


def test_every_host_has_addresses_of_its_own() -> None:
    every = [addresses_of(number, (Nat(),)) for number in range(1, MOST_HOSTS + 1)]
    for kind in ("private", "public", "private6"):
        assert len({getattr(each, kind) for each in every}) == MOST_HOSTS


def test_every_host_of_a_lan_has_addresses_of_its_own_but_the_public_one() -> None:
    every = [addresses_of(number, (Nat(),), lan=1) for number in range(1, MOST_HOSTS + 1)]
    for kind, different in (("private", MOST_HOSTS), ("private6", MOST_HOSTS), ("public", 1)):
        assert len({getattr(each, kind) for each in every}) == different


def test_no_two_nats_share_an_address() -> None:
    nats = (Nat(pool=3), Nat(translates=False), Nat(pool=254), Nat(pool=254))
    pools = [addresses_of(number, nats).pools for number in range(1, MOST_HOSTS + 1)]
    every = [address for row in pools for pool in row for address in pool]
    assert len(every) == len(set(every)) == MOST_HOSTS * (3 + 254 + 254)
    assert all(ip_address(row[0][0]) in ip_network("100.64.0.0/10") for row in pools)
    assert all(ip_address(row[2][0]) in ip_network("100.64.0.0/10") for row in pools)
    assert all(row[1] == () for row in pools)


def _packet(it: Net, kind: str, *, v6: bool) -> bytes:
    """A TCP segment, a datagram or an echo from left to right, or the ICMP error with which left answers one."""
    left, right = (it.left.private6, it.right.public6) if v6 else (it.left.private, it.right.public)
    if kind == "tcp":
        return tcp((left, 1), (right, 2), data=b"x" * 40)
    if kind == "echo":
        return echo(8, it.left.private, it.right.public, 77)
    if kind == "udp":
        return udp((left, 1), (right, 2), b"x" * 40)
    return time_exceeded_for(parse(udp((right, 2), (left, 1), b"x" * 40)), left).data


NATS = st.builds(Nat, unsolicited=st.sampled_from(Unsolicited), hairpinning=st.booleans(), tracking=st.booleans())


@given(st.data(), st.sampled_from(["tcp", "udp", "icmp", "echo"]), st.booleans())
def test_no_packet_that_a_host_can_make_upsets_the_core(data: st.DataObject, kind: str, v6: bool) -> None:
    rows = st.lists(NATS, max_size=3)
    it = net(Conditions(nat=tuple(data.draw(rows))), Conditions(nat=tuple(data.draw(rows)), bandwidth_bps=1e6))
    it.core.offer("left", _packet(it, "udp", v6=v6), 0)  # opens a mapping, of which an ICMP error may speak
    packet = bytearray(_packet(it, kind, v6=v6))
    for _ in range(data.draw(st.integers(0, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    it.core.offer("left", bytes(packet[: data.draw(st.integers(0, len(packet)))]), 1)
    it.arrivals()
    assert 1 <= len(it.core.passages()) <= 4  # what is a packet of the two, and what answers it
