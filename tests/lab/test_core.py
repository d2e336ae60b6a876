"""The pure core: delay, order, loss, hops and verdicts, on a clock that the tests turn by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.lab.conditions import MOST_HOSTS, Addresses, Conditions, addresses_of, router_address
from simopen.lab.core import Core
from simopen.lab.nat import Nat, Unsolicited
from simopen.lab.packet import Endpoint, Flags
from simopen.lab.record import Origin, Verdict
from simopen.lab.wire import parse, time_exceeded_for
from tests.lab.packets import tcp, udp

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


def test_two_syns_that_cross_open_both_nats() -> None:
    nat = Nat(unsolicited=Unsolicited.RESET)
    it = net(Conditions(delay_s=0.010, nat=nat), Conditions(delay_s=0.010, nat=nat))
    it.core.offer("left", tcp((it.left.private, 1314), (it.right.public, 1314)), 0)
    it.core.offer("right", tcp((it.right.private, 1314), (it.left.public, 1314)), 5 * MS)
    assert [(due_ns, host) for due_ns, host, _ in it.arrivals()] == [(20 * MS, "right"), (25 * MS, "left")]


def test_a_record_begun_anew_forgets_what_is_under_way() -> None:
    it = net(Conditions(delay_s=0.010))
    it.send()
    it.core.forget_passages()
    assert len(it.arrivals()) == 1
    assert it.verdicts() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("delay_s", -1), ("jitter_s", -0.1), ("loss", 1.1), ("loss", -0.1), ("hops", -1), ("hops", 121)],
)
def test_conditions_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=str(value)):
        Conditions(**{name: value})  # type: ignore[arg-type]


def test_every_host_has_addresses_of_its_own() -> None:
    every = [addresses_of(number, (Nat(),)) for number in range(1, MOST_HOSTS + 1)]
    for kind in ("private", "public", "private6"):
        assert len({getattr(each, kind) for each in every}) == MOST_HOSTS


def _packet(it: Net, kind: str, *, v6: bool) -> bytes:
    """A TCP segment or a datagram from left to right, or the ICMP error with which left answers one."""
    left, right = (it.left.private6, it.right.public6) if v6 else (it.left.private, it.right.public)
    if kind == "tcp":
        return tcp((left, 1), (right, 2), data=b"x" * 40)
    if kind == "udp":
        return udp((left, 1), (right, 2), b"x" * 40)
    return time_exceeded_for(parse(udp((right, 2), (left, 1), b"x" * 40)), left).data


@given(st.data(), st.sampled_from(["tcp", "udp", "icmp"]), st.booleans())
def test_no_packet_that_a_host_can_make_upsets_the_core(data: st.DataObject, kind: str, v6: bool) -> None:
    it = net(Conditions(nat=Nat()), Conditions(nat=Nat(unsolicited=Unsolicited.RESET)))
    it.core.offer("left", _packet(it, "udp", v6=v6), 0)  # opens a mapping, of which an ICMP error may speak
    packet = bytearray(_packet(it, kind, v6=v6))
    for _ in range(data.draw(st.integers(0, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    it.core.offer("left", bytes(packet[: data.draw(st.integers(0, len(packet)))]), 1)
    it.arrivals()
    assert 1 <= len(it.core.passages()) <= 3
