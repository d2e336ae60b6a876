"""The simulator: the pure opener against RFC 9293's figures, and punches against what was measured on real kernels."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.simulation.clocks import overlap, success
from benchmarks.simulation.host import REACTION_NS
from benchmarks.simulation.population import Share, pair_share, populations, weighted
from benchmarks.simulation.punching import Result, Side, punch
from benchmarks.simulation.tcp import ACK, RST, RST_ACK, RTO_NS, SYN, SYN_ACK, Opener, Segment, State, refusal
from benchmarks.simulation.validation import CELLS, chosen, simulated
from benchmarks.tables import simulate
from simopen.lab.nat.model import Nat, Unsolicited
from simopen.model.nat import Allocation, Filtering, Mapping

ROOT = Path(__file__).parents[2]
DROP, RESET = (Nat(unsolicited=Unsolicited.DROP),), (Nat(unsolicited=Unsolicited.RESET),)
PLACES = {"none": (), "drop": DROP, "reset": RESET}
RANDOM = Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
BY_ADDRESS = Nat(filtering=Filtering.ADDRESS_DEPENDENT)
RTT_MS = 80.0
REACTION_MS = REACTION_NS / 1e6
SIDE = Side(RTT_MS / 4e3)


def apart(ms: float, nats: tuple[Nat, ...] = (), **more: bool | float) -> Result:
    """A punch over 80 ms of RTT, the right side that much later."""
    side = replace(SIDE, nats=nats, **more)  # type: ignore[arg-type]
    return punch(side, replace(side, error_s=ms / 1e3))


def test_three_way_handshake() -> None:
    """RFC 9293 figure 6."""
    client = Opener.connecting(100)
    assert client.latest == Segment(SYN, 100)
    server = Opener.accepting(client.latest, 300)
    assert server is not None
    assert server.latest == Segment(SYN_ACK, 300, 101)
    answer = client.receive(server.latest, 0)
    assert answer == Segment(ACK, 101, 301)
    assert server.receive(answer, 0) is None
    assert (client.state, server.state) == (State.ESTABLISHED, State.ESTABLISHED)


def test_simultaneous_open() -> None:
    """RFC 9293 figure 7: the SYNs cross, and then the SYN-ACKs; Linux acknowledges these."""
    one, other = Opener.connecting(100), Opener.connecting(300)
    from_other = other.receive(one.latest, 0)
    from_one = one.receive(Segment(SYN, 300), 0)
    assert (from_one, from_other) == (Segment(SYN_ACK, 100, 301), Segment(SYN_ACK, 300, 101))
    assert (one.state, other.state) == (State.SYN_RECEIVED, State.SYN_RECEIVED)
    assert one.receive(Segment(SYN_ACK, 300, 101), 0) == Segment(ACK, 101, 301)
    assert other.receive(Segment(ACK, 101, 301), 0) is None
    assert (one.state, other.state) == (State.ESTABLISHED, State.ESTABLISHED)


def test_recovery_from_an_old_duplicate_syn() -> None:
    """RFC 9293 figure 8, the opener's half: a SYN-ACK of another SYN is refused, and our own SYN lives on."""
    opener = Opener.connecting(100)
    assert opener.receive(Segment(SYN_ACK, 300, 91), 0) == Segment(RST, 91)
    assert opener.state is State.SYN_SENT


@pytest.mark.parametrize(
    ("segment", "state"),
    [
        (Segment(RST_ACK, 0, 101), State.CLOSED),
        (Segment(RST_ACK, 0, 100), State.SYN_SENT),
        (Segment(RST_ACK, 0, 102), State.SYN_SENT),
        (Segment(RST, 101), State.SYN_SENT),
        (Segment(ACK, 300, 101), State.SYN_SENT),
    ],
    ids=["acknowledges our SYN", "too old", "never sent", "without an ACK", "no RST at all"],
)
def test_only_a_rst_that_acknowledges_the_syn_ends_syn_sent(segment: Segment, state: State) -> None:
    opener = Opener.connecting(100)
    assert opener.receive(segment, 0) is None
    assert opener.state is state


@pytest.mark.parametrize(
    ("segment", "answer"),
    [
        (Segment(SYN, 100), Segment(RST_ACK, 0, 101)),
        (Segment(SYN, 2**32 - 1), Segment(RST_ACK, 0, 0)),
        (Segment(SYN_ACK, 300, 101), Segment(RST, 101)),
        (Segment(ACK, 300, 101), Segment(RST, 101)),
        (Segment(RST, 100), None),
        (Segment(RST_ACK, 0, 101), None),
    ],
)
def test_what_a_closed_port_answers(segment: Segment, answer: Segment | None) -> None:
    """RFC 9293 §3.10.7.1."""
    assert refusal(segment) == answer


def test_a_listener_takes_a_syn_and_nothing_else() -> None:
    assert Opener.accepting(Segment(SYN, 1), 300) is not None
    assert all(Opener.accepting(Segment(flags, 1, 1), 300) is None for flags in (SYN_ACK, ACK, RST, RST_ACK))


def test_a_syn_of_another_attempt_is_challenged_and_the_rst_it_brings_ends_the_connection() -> None:
    """The peer's RST for our challenge says that it knows nothing of this connection (RFC 5961 §4)."""
    opener = Opener.connecting(100)
    opener.receive(Segment(SYN, 300), 0)
    challenge = opener.receive(Segment(SYN, 9000), 0)
    assert challenge == Segment(ACK, 101, 301)
    assert opener.receive(Segment(SYN, 9000), RTO_NS // 4) is None, "at most one in 500 ms"
    assert opener.receive(Segment(SYN, 9000), RTO_NS // 2) == challenge
    peer = Opener.connecting(9000)
    answer = peer.receive(challenge, 0)
    assert answer == Segment(RST, 301)
    opener.receive(answer, 0)
    assert (opener.state, peer.state) == (State.CLOSED, State.SYN_SENT)


def test_a_syn_is_sent_again_linearly_and_then_ever_more_rarely() -> None:
    """linux/ip-sysctl, tcp_syn_linear_timeouts: 1, 1, 1, 1, 1, 2, 4, ... s."""
    opener, waits = Opener.connecting(100), []
    while opener.unacked:
        waits.append(opener.rto_ns // RTO_NS)
        assert opener.resend() in (Segment(SYN, 100), None)
    assert waits == [1, 1, 1, 1, 1, 2, 4, 8, 16, 32, 64]


def test_a_syn_ack_is_sent_again_at_doubling_intervals() -> None:
    opener, waits = Opener.accepting(Segment(SYN, 1), 300), []
    assert opener is not None
    while opener.unacked:
        waits.append(opener.rto_ns // RTO_NS)
        assert opener.resend() in (Segment(SYN_ACK, 300, 2), None)
    assert waits == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("ms", [0.0, 30.0, 45.0, 500.0, 1990.0])
def test_one_round_trip_after_the_later_syn(place: str, ms: float) -> None:
    result = apart(ms, PLACES[place])
    assert result.connected
    assert result.later_ms == RTT_MS
    assert result.both_ms is not None
    assert RTT_MS <= result.both_ms <= 1.5 * RTT_MS


@pytest.mark.parametrize(
    ("place", "ms", "connected"),
    [
        ("none", 0.0, True),
        ("none", 39.0, True),
        ("none", 45.0, False),
        ("none", 500.0, False),
        ("reset", 0.0, True),
        ("reset", 39.0, True),
        ("reset", 45.0, False),
        ("reset", 500.0, False),
        ("drop", 0.0, True),
        ("drop", 45.0, True),
        ("drop", 500.0, True),
    ],
)
def test_one_connect_each(place: str, ms: float, connected: bool) -> None:
    """Refused above the one-way delay, unless the NATs drop silently: then the later SYN does the work."""
    assert apart(ms, PLACES[place], listen=False, retry=False).connected is connected


def test_the_earlier_side_fires_once_a_round_trip() -> None:
    result = apart(500.0, RESET)
    assert (result.left.shots, result.right.shots) == (1 + int(500 // (RTT_MS + REACTION_MS)), 1)


def test_a_listener_catches_a_peer_whose_syn_meets_none_of_ours() -> None:
    """The left side never fires again, so only its listener can take the later SYN."""
    left = replace(SIDE, retry=False)
    caught = punch(left, replace(SIDE, error_s=0.2))
    assert caught.connected
    assert (caught.left.accepted, caught.right.accepted) == (True, False)
    assert caught.later_ms == RTT_MS
    assert not punch(replace(left, listen=False), replace(SIDE, error_s=0.2)).connected


def test_a_lost_syn_is_made_good_by_the_kernel_after_a_second() -> None:
    """Of many seeds, some lose a SYN or SYN-ACK: these take whole seconds longer, and the others one round trip."""
    side = replace(SIDE, nats=DROP, loss=0.025)
    results = [punch(side, side, seed=seed) for seed in range(200)]
    assert all(result.connected for result in results)
    times = {round((result.both_ms or 0.0) / 1e3) for result in results}
    assert 0 in times
    assert 1 in times
    assert [punch(side, side, seed=seed) for seed in range(200)] == results, "a seed decides"


def test_with_everything_lost_nothing_comes_up() -> None:
    result = punch(replace(SIDE, loss=1.0), SIDE)
    assert not result.connected
    assert (result.left.established_ns, result.right.established_ns) == (None, None)


def test_jitter_delays_and_keeps_the_order() -> None:
    side = replace(SIDE, nats=DROP, jitter_s=0.02)
    times = [punch(side, side, seed=seed).later_ms or 0.0 for seed in range(50)]
    assert min(times) > RTT_MS
    assert max(times) <= RTT_MS + 80.0
    assert len(set(times)) > 40


def test_nats_in_a_row_are_passed_in_order() -> None:
    result = punch(replace(SIDE, nats=DROP * 2), replace(SIDE, nats=RESET + DROP, error_s=0.1))
    assert result.connected
    assert result.later_ms == RTT_MS


def test_a_window_that_closes_before_the_other_opens_connects_nobody() -> None:
    assert not apart(1001.0, DROP, window_s=1.0).connected
    assert apart(870.0, DROP, window_s=1.0).connected
    assert not apart(890.0, DROP, window_s=1.0).connected, "the earlier side needs one and a half round trips"


def test_the_windows_overlap_as_often_as_two_normal_errors_say() -> None:
    cell = success("drop", 1.0, 20.0, 1.0, punches=400, seed=1)
    assert overlap(1.0, 1.0) == pytest.approx(0.5205, abs=1e-4)
    assert abs(cell.share - cell.expected) < 0.08
    assert success("reset", 0.01, 20.0, 1.0, punches=20, seed=1).share == 1.0


def test_a_listener_catches_a_peer_whose_nat_chose_another_port() -> None:
    """In one and a half round trips, where the NAT before it filters by address or not at all; and else never."""
    caught = punch(replace(SIDE, nats=(BY_ADDRESS,)), replace(SIDE, nats=(RANDOM,), error_s=0.05), discovered=True)
    assert caught.connected
    assert caught.left.accepted
    assert caught.both_ms == 1.5 * RTT_MS
    deaf = replace(SIDE, nats=(BY_ADDRESS,), listen=False)
    assert not punch(deaf, replace(SIDE, nats=(RANDOM,), error_s=0.05), discovered=True).connected
    assert not punch(replace(SIDE, nats=DROP), replace(SIDE, nats=(RANDOM,), error_s=0.05), discovered=True).connected


def test_the_endpoint_that_a_third_party_saw_is_where_to_fire_if_the_mapping_is_endpoint_independent() -> None:
    side = replace(SIDE, nats=(Nat(allocation=Allocation.RANDOM),))
    assert punch(side, side, discovered=True).connected
    assert not punch(side, side).connected


@pytest.mark.parametrize("unsolicited", [Unsolicited.ICMP, Unsolicited.RESET])
def test_an_icmp_error_is_as_good_as_a_rst(unsolicited: Unsolicited) -> None:
    assert apart(500.0, (Nat(unsolicited=unsolicited),)) == apart(500.0, RESET)


def test_a_nat_that_holds_a_syn_says_nothing_once_one_of_its_own_went_out() -> None:
    held = (Nat(unsolicited=Unsolicited.HOLD),)
    assert apart(500.0, held) == apart(500.0, DROP)
    alone = punch(replace(SIDE, nats=DROP), replace(SIDE, nats=held, error_s=20.0))
    assert alone.left.shots > 1, "after 6 s the held SYN was answered by ICMP, and the left side fired again"


def test_a_nat_that_refuses_syns_lets_the_answer_to_its_own_in() -> None:
    """The left host's SYN is dropped by the right NAT; the second one, after 1 s, finds the right host waiting."""
    refuser = (Nat(refuses_syns=True),)
    result = punch(replace(SIDE, nats=refuser), replace(SIDE, nats=DROP, error_s=0.045))
    assert result.later_ms == 1000.0 - 45.0 + 1.5 * RTT_MS
    assert not apart(45.0, refuser).connected


@pytest.mark.parametrize(
    ("left", "right", "share"),
    [
        (Nat(), Nat(), 1.0),
        (Nat(), Nat(unsolicited=Unsolicited.RESET), 1.0),
        (BY_ADDRESS, RANDOM, 1.0),
        (RANDOM, BY_ADDRESS, 1.0),
        (Nat(), RANDOM, 0.0),
        (RANDOM, RANDOM, 0.0),
    ],
)
def test_which_pairs_of_nats_connect(left: Nat, right: Nat, share: float) -> None:
    assert pair_share(left, right) == share


def test_pairs_are_weighted_by_both_shares() -> None:
    good, bad = Nat(), RANDOM
    shares = {(good, good): 1.0, (good, bad): 0.5, (bad, good): 0.5, (bad, bad): 0.0}
    assert weighted(((good, 0.8), (bad, 0.2)), shares) == pytest.approx(0.64 + 0.16)


def test_every_population_is_whole_and_has_a_source_and_a_year() -> None:
    for each in populations():
        assert sum(share for _, share in each.kinds) == pytest.approx(1.0)
        assert each.source.name
        assert 2000 < each.source.year < 2030


def test_every_cell_of_the_validation_has_one_verdict_in_the_simulator() -> None:
    """A cell that chance decides could not be compared."""
    assert len(CELLS) == 50
    for cell in CELLS:
        assert len({result.connected for result in simulated(cell)}) == 1, cell


def test_the_page_has_every_answer_with_what_it_rests_on() -> None:
    cell = success("drop", 1.0, 20.0, 1.0, punches=4, seed=1)
    share = Share("Somebody", 2005, 0.64, "286 NATs", "random ports", "address-dependent", 0.873, 0.414)
    compared = {"difference": -0.031, "holds": True, "same_verdict": True}
    rows = [{"question": "clocks", **cell.row()}, {"question": "population", **share.row()}]
    text = simulate({"rows": [*rows, {"question": "validate", **compared}]})
    assert f"| drop | 1.0 | 20.0 | {cell.connected / 4:.1%} |" in text
    assert "| Somebody 2005: 64.0% of 286 NATs | the rest: random ports; filtering: address-dependent | 87.3% |" in text
    assert "in 1 cells: the same verdict in 1" in text
    assert "3.1%" in text


def test_fewer_cells_are_spread_over_all_of_them() -> None:
    assert chosen(len(CELLS)) == list(CELLS)
    assert chosen(3) == [CELLS[0], CELLS[16], CELLS[33]]


def test_the_command_writes_what_it_found(tmp_path: Path) -> None:
    found = tmp_path / "simulate.json"
    command = [sys.executable, "-m", "benchmarks.simulate", "rate", "--punches", "5", "--json", str(found)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: too slow, which is the machine's to say
    result = json.loads(found.read_text(encoding="utf-8"))
    assert result["benchmark"] == "simulate"
    assert result["conditions"]["clock_errors"] == "normal around 0, independent"
    assert {row["question"] for row in result["rows"]} == {"rate"}
