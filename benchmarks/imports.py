"""What `import simopen` costs, and its first use, next to `import asyncio, ssl`.

python -m benchmarks.imports [--runs 30]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.common import Row, measuring, median, options_parser, rounded, save, shape, shown, table

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


def measure(runs: int) -> list[Row]:
    """A row per statement. `net_ms`: what its median takes longer than an empty interpreter's."""
    took_ms(STATEMENTS["simopen"])  # compiles it
    took: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(runs):  # in turn, so that whatever else the machine does hits all alike
        for name, statement in STATEMENTS.items():
            took[name].append(took_ms(statement))
    empty = median(took["nothing"])
    return [
        {"import": name, **shape(each, "took", "ms"), "net_ms": rounded(median(each) - empty)}
        for name, each in took.items()
    ]


def main() -> None:
    parser = options_parser(__doc__)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    with measuring(runs=options.runs) as given:
        rows = measure(options.runs)
    table("ms for an interpreter that imports", rows)
    net = {row["import"]: row["net_ms"] for row in rows}
    ratio = net["simopen"] / net["asyncio, ssl"]
    print(f"\nsimopen costs {ratio:.2f} × asyncio and ssl; at most {BAR}: {shown(ratio <= BAR)}")
    save(options.json, "imports", given, rows)


if __name__ == "__main__":
    main()
