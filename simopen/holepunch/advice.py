"""What to do about a failure: the words that depend on how the two sides agreed, by tickets, profiles or a code.

Theory of operation: pure, words only. Which of them fits is `diagnosis`'s to say.
"""

from __future__ import annotations

from simopen.model.report import Cause

NEW_TICKETS = (
    "Did the peer run `simopen connect` with your latest ticket in time, with `simopen nat --ticket` still running "
    "there? If not, make new tickets on both sides; if so, compare what `simopen clock` says on both"
)
SPRAYING = "that tries hundreds of ports a second"
ALLOW_SPRAY = f"Run it again with --spray on both sides (spray=True in a program): {SPRAYING}"
SPRAY = {
    False: f"Or make the new tickets with `simopen nat --ticket --spray`, on both sides: {SPRAYING}",
    True: "This side sprayed: was the peer allowed to, too, by both tickets or by --spray? Both sides must be",
}
REFUSING = (
    "A firewall near one of the two sides refuses, or a router there knows no way: `simopen doctor`, on both sides, "
    "says more. Where both are in one network, it may keep its hosts apart, as a guests' Wi-Fi does"
)
NEW_PROFILES = "discover and swap new profiles on both sides"
BY_PROFILE = {
    Cause.NOT_FIRED: f"Agree on a later instant: {NEW_PROFILES}, and check this machine's clock with `simopen clock`",
    Cause.THIS_HOST: f"See that nothing stops this process or keeps it busy from the instant on; then {NEW_PROFILES}",
    Cause.PORT_TAKEN: "Use another local port: discover from that one, and swap the new profiles",
    Cause.NO_ROUTE: f"Check this host's connection; then {NEW_PROFILES}",
    Cause.UNREACHABLE: f"{REFUSING}; then {NEW_PROFILES}",
    Cause.CLOCKS_APART: f"Run `simopen clock` on both sides, and compare the instants; then {NEW_PROFILES}",
    Cause.WRONG_PORT: "More than one punch here waits for that address: give each a local port of its own, and "
    f"{NEW_PROFILES}",
    Cause.REFUSED: "Did the peer fire at the same instant, by your latest profile, and did both sides hold their "
    f"mappings until then? If not, {NEW_PROFILES}; if so, compare what `simopen clock` says on both. Or a NAT or "
    "firewall in between answers for the peer",
    Cause.EARLIER_STREAM: "A router on the way may still remember that stream, and let nothing of a new one in: wait "
    f"two minutes, or use another local port on both sides; then {NEW_PROFILES}",
    Cause.SILENCE: "Did the peer fire at the same instant, by your latest profile, and did both sides hold their "
    f"mappings until then? If not, {NEW_PROFILES}; if so, compare what `simopen clock` says on both. Or a firewall "
    "drops this side's SYNs or the peer's",
}
SPRAY_BY_PROFILE = {
    False: f"Or let both sides spray (spray=True): {SPRAYING}",
    True: "This side sprayed: did the peer, too (spray=True)? Both sides must",
}
AGAIN = "try again, both sides (a code is good for one meeting: make a new one)"
BY_CODE = {
    Cause.NOT_FIRED: f"See that nothing stops this process or keeps it busy; then {AGAIN}",
    Cause.THIS_HOST: f"See that nothing stops this process or keeps it busy; then {AGAIN}",
    Cause.PORT_TAKEN: "Leave out --local-port (local= in a program), or wait a minute; then " + AGAIN,
    Cause.NO_ROUTE: f"Check this host's connection; then {AGAIN}",
    Cause.UNREACHABLE: f"{REFUSING}; then {AGAIN}, from another network on that side",
    Cause.CLOCKS_APART: f"The peer's host was stopped, or busy, at the instant: {AGAIN}",
    Cause.WRONG_PORT: f"More than one punch here waits for that address: let one end first; then {AGAIN}",
    Cause.REFUSED: "A NAT or firewall answers for the peer, or it gives each connection another port: run `simopen "
    f"doctor` on both sides, which says whose; then {AGAIN}, from another network on that side",
    Cause.EARLIER_STREAM: "A router on the way may still remember that stream, and let nothing of a new one in: wait "
    f"two minutes; then {AGAIN}",
    Cause.SILENCE: "A NAT gives each connection another port, or a firewall drops this side's SYNs or the peer's: run "
    f"`simopen doctor` on both sides, which says whose; then {AGAIN}, from another network on that side",
}
SPRAY_BY_CODE = {
    False: f"Or with --spray on both sides (spray=True in a program): {SPRAYING}",
    True: "This side sprayed, as both allowed it: it may find the port the next time",
}
