"""Run what must keep holding, in full or a share of it.

    python -m tests.soak [KIND ...] [--share 1.0] [--only NUMBER]

Each failure is told with its number and its traceback; `--only` repeats one of them: the same choices, if not the same
moment. Where a kind has kinds of its own, it is told how many of each have held. Exits with 1 where anything failed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.soak.kinds import KINDS, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"one of {', '.join(KINDS)}; all where none is given")
    parser.add_argument("--share", type=float, default=1.0, help="of each kind's number")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this one of each kind, once")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"no kind is called {' or '.join(sorted(unknown))}")
    failed = 0
    for name in options.kinds or KINDS:
        kind = KINDS[name]
        numbers = range(kind.units(options.share)) if options.only is None else [options.only]
        counts: Counter[str] = Counter()
        failures = run(name, numbers, counts)
        for failure in failures:
            print(failure, flush=True)
        print(f"{name}: {len(failures)} of {len(numbers) * kind.at_once:,} failed", flush=True)
        for what, count in sorted(counts.items()):
            print(f"  {what}: {count:,}")
        failed += len(failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
