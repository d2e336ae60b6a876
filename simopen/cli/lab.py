"""`simopen lab`: two hosts in the lab behind the NATs that somebody names, and what came of their punches.

Theory of operation: arguments in, an exit status out. `lab/trial/run.py` punches, `lab/trial/explain.py` puts it into
words, what draws it `time_sequence`; they load when they are wanted, since every `simopen` reads the arguments declared
here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simopen import _logs
from simopen.cli.arguments import argument, count, seed, share, window
from simopen.cli.console import Screen, answer, fitted
from simopen.clock.instant import parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simopen.lab.nat.presets import Nats
    from simopen.lab.trial.run import Run, Setting

EXAMPLES = """\
SPEC: a short name, or MAPPING[/FILTERING] and other words of RFC 4787, with
commas between them; NATs in a row, from the host outwards, with + between them.
`simopen lab --list` explains them all.
  simopen lab --left home --right home
  simopen lab --left home+cgn --apart 100ms \\
    --right endpoint-independent/address-dependent,sequential,step=4
  simopen lab --left mobile --right home --spray
  simopen lab --left home,reset --right home --delay 20ms --loss 2% \\
    --runs 20 --plot out.svg
each side asks STUN servers in the lab what its NATs do, the two exchange
tickets and punch as `simopen connect TICKET` does; IPv4 only: with IPv6, which
no NAT translates, they would meet past the NATs
"""
logger = _logs.logger("lab")
_MOST_RUNS = 30_000  # each has a port of its own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen lab` takes."""
    nats, seconds = argument(_nats), argument(parse_duration)
    before = "NATs before the {} host (default: home)"
    parser.add_argument("--left", metavar="SPEC", type=nats, default="home", help=before.format("left"))
    parser.add_argument("--right", metavar="SPEC", type=nats, default="home", help=before.format("right"))
    parser.add_argument("--delay", metavar="S", type=seconds, default="40ms", help="one way (default: %(default)s)")
    parser.add_argument("--jitter", metavar="S", type=seconds, default="0s", help="up to so much more for a packet")
    parser.add_argument("--loss", metavar="SHARE", type=argument(share), default="0", help="each way, as 2%%")
    parser.add_argument(
        "--apart", metavar="S", type=seconds, default="0s", help="right fires this much later than left"
    )
    parser.add_argument(
        "--window", metavar="S", type=argument(window), default="10s", help="give up after (default: %(default)s)"
    )
    parser.add_argument(
        "--spray", action="store_true", help="where the two NATs leave nothing else, try very many ports (default: no)"
    )
    runs = argument(lambda text: count(text, _MOST_RUNS))
    parser.add_argument("--runs", metavar="N", type=runs, default=1, help="punch this many times (default: once)")
    parser.add_argument(
        "--seed", metavar="N", type=argument(seed), default=0, help="of all chance: loss, jitter, random ports"
    )
    parser.add_argument(
        "--plot", metavar="FILE", type=argument(_picture), help="draw the (first) run: .svg, .png, .pdf"
    )
    parser.add_argument("--list", action="store_true", help="explain each short name and each word, do nothing else")


def _nats(text: str) -> Nats:
    from simopen.lab.nat import presets
    from simopen.lab.net.conditions import Conditions

    nats = presets.parse_nats(text)
    Conditions(nat=nats)  # raises for too many in a row
    return nats


def _picture(text: str) -> str:
    from simopen.lab.draw.canvas import check_suffix

    check_suffix(text)
    directory = Path(text).absolute().parent
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ValueError(f"there is no directory {directory} to write to")
    try:
        os.stat(text)
    except FileNotFoundError:
        return text
    except (OSError, ValueError) as error:  # a name too long, or one with a null in it
        raise ValueError(f"no file can have the name {text!r}: {error}") from None
    if Path(text).is_dir() or not os.access(text, os.W_OK):
        raise ValueError(f"{text!r} cannot be written to")
    return text


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status: 0 where every run connected.

    Raises: LabError where no lab can be had, or matplotlib is missing for a picture; OSError for a file.
    """
    if options.list:
        return _list(options, screen)
    if options.plot:
        from simopen.lab.draw.canvas import require_matplotlib

        require_matplotlib()  # before the work, not after
    setting, runs = await _tried(options, screen)
    _tell(options, setting, runs)
    if options.plot:
        _draw(options.plot, runs[0], screen)
    return 0 if all(run.connected for run in runs) else 1


async def _tried(options: argparse.Namespace, screen: Screen) -> tuple[Setting, list[Run]]:
    from simopen.lab.trial import run

    setting = run.Setting(
        left=options.left,
        right=options.right,
        delay_s=options.delay,
        jitter_s=options.jitter,
        loss=options.loss,
        apart_s=options.apart,
        window_s=options.window,
        spray=options.spray,
        seed=options.seed,
    )

    def ended(number: int) -> None:
        logger.info("runs that have ended: %d of %d", number, options.runs)
        update(_progress(number, options.runs))

    with screen.line(_progress(0, options.runs)) as update:
        runs = await run.trials(setting, options.runs, ended)
    return setting, runs


def _progress(number: int, runs: int) -> str:
    return "two hosts punch ..." if runs == 1 else f"two hosts punch: {number} of {runs} runs done ..."


def _tell(options: argparse.Namespace, setting: Setting, runs: Sequence[Run]) -> None:
    from simopen.lab.trial import explain
    from simopen.lab.trial.run import summed_up

    if options.json:
        summary = summed_up(runs).as_dict()
        told = [
            run.as_dict() | {"reason": explain.reason(run, setting), "nats": explain.nats_as_dict(run)} for run in runs
        ]
        answer(json.dumps({"setting": setting.as_dict(), "summary": summary, "runs": told}))
        return
    answer(fitted(explain.story(setting, runs), sys.stdout))


def _draw(path: str, run: Run, screen: Screen) -> None:
    from simopen.lab.draw.nat_actions import tcp_between
    from simopen.lab.draw.time_sequence import time_sequence
    from simopen.lab.trial.run import LEFT, RIGHT

    if not tcp_between(run.story, LEFT, RIGHT):
        screen.say(f"simopen: no packet went between the two, so there is nothing to draw in {path}")
        return
    time_sequence(run.story, LEFT, RIGHT, path)
    screen.say(f"drawn: {path}")


def _list(options: argparse.Namespace, screen: Screen) -> int:
    from simopen.lab.nat import presets

    rows = presets.explained()
    if options.json:
        answer(json.dumps(dict(rows)))
        return 0
    screen.table("what --left and --right take, with commas between words and + between NATs", ("word", "means"), rows)
    return 0
