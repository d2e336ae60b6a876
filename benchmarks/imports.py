"""What `import simopen` costs, and its first use, next to `import asyncio, ssl`.

python -m benchmarks.imports [--runs 30]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from benchmarks.common import conditions, median, quantile, table, verdict

BAR = 1.3
STATEMENTS = {
    "nothing": "pass",
    "asyncio, ssl": "import asyncio, ssl",
    "simopen": "import simopen",
    "simopen.connect": "import simopen; simopen.connect",
}

# As after any installation: compiled once, not anew each time.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def took_ms(statement: str) -> float:
    """From starting an interpreter to its end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=ENVIRONMENT)
    return (time.perf_counter() - begun) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    print(conditions(n=f"{options.runs} interpreters per row"), flush=True)
    took_ms(STATEMENTS["simopen"])  # compiles it
    took: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(options.runs):  # in turn, so that whatever else the machine does hits all alike
        for name, statement in STATEMENTS.items():
            took[name].append(took_ms(statement))
    empty = median(took["nothing"])
    rows = [
        [name, f"{median(each):.1f}", f"{quantile(each, 0.99):.1f}", f"{median(each) - empty:.1f}"]
        for name, each in took.items()
    ]
    table("ms for an interpreter that imports", ("import", "p50", "p99", "less an empty one"), rows)
    ratio = (median(took["simopen"]) - empty) / (median(took["asyncio, ssl"]) - empty)
    print(f"\nsimopen costs {ratio:.2f} × asyncio and ssl; at most {BAR}: {verdict(ratio <= BAR)}")


if __name__ == "__main__":
    main()
