"""Every benchmark, one after the other, and the tables of `docs/measured.md` from what they found.

    python -m benchmarks [NAME ...] [--short] [--resume] [--results DIR]

Each writes DIR/NAME.json as soon as it has ended. In full that is `benchmarks/results`, the evidence that the
tables are made of, and they are made anew at the end. `--short` takes under two minutes, the making of the project's
own environment included; it proves only that everything works, leaves out the rivals that need environments of their
own, and writes to `build/bench`. `--resume` leaves out what is in DIR already.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.tables import RESULTS, update

SHORT_RESULTS = Path("build/bench")
# What each is asked for: in full, and in short.
PLAN: dict[str, tuple[str, str]] = {
    "imports": ("", "--runs 5"),
    "lab_error": ("", "--packets 1000"),
    "precision": ("", "--runs 20 --loop uvloop --load idle"),
    "establish": ("", "--runs 3 --rival-runs 1 --rtt 80 --apart 0 45 --answer none drop reset --loop uvloop"),
    "many": ("", "--connects 1 300 --loop uvloop"),
    "link": ("", "--runs 1 --links 100 --mib 16 --loop uvloop"),
    "http": ("", "--runs 1 --requests 20 --mib 16 --loop uvloop"),
    "forward": ("", "--connections 4 --each 1 --short 20 --mib 16 --runs 1 --loop uvloop"),
    "transfer": ("", "--runs 1 --mib 16 --small 100"),
    "homes": ("", "--runs 1 --mib 8"),
    "serve": ("", "--servers simopen twisted --seconds 1 --waiters 100"),
    "nats": ("", "--seconds 1 --pairs 20"),
    "meet": ("", "--runs 1"),
    "session": ("", "--cuts 1 --away 0.1 0.1 --gone --asleep"),
    "matrix": ("", "--short --runs 2"),
    "matrix_by_code": ("--meet --runs 1 --at-once 6", "--meet --only open --runs 1"),
    "again": ("", "--short --meetings 3"),
    "peers": ("", "--here --runs 1 --apart 0 30 --at-once 9"),
    "clock": ("", "--trials 60"),
    "simulate": ("rate clocks population validate", "rate validate --punches 200 --cells 6 --runs 3"),
}
MODULES = {"matrix_by_code": "matrix"}
"""Of those that are another's, asked otherwise."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(PLAN)}; all where none is given")
    parser.add_argument("--short", action="store_true", help="briefly, under two minutes in all")
    parser.add_argument("--resume", action="store_true", help="leave out those whose result is there already")
    parser.add_argument("--results", type=Path, metavar="DIR")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PLAN):
        parser.error(f"no benchmark is called {' or '.join(sorted(unknown))}")
    into = options.results or (SHORT_RESULTS if options.short else RESULTS)
    chosen = [name for name in options.names or PLAN if not (options.resume and (into / f"{name}.json").exists())]
    failed = [name for name in chosen if not _run(name, PLAN[name][options.short], into / f"{name}.json")]
    if into.resolve() == RESULTS:
        update()
    print(f"\nfailed: {', '.join(failed)}" if failed else f"\nresults are in {into}")
    return 1 if failed else 0


def _run(name: str, options: str, result: Path) -> bool:
    print(f"\n== {name} {options}", flush=True)
    begun = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{MODULES.get(name, name)}", *options.split(), "--json", str(result)]
    done = subprocess.run(command, check=False)
    print(f"({time.monotonic() - begun:.0f} s)", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
