"""Every benchmark, briefly: `python -m benchmarks`, or `make bench`. Each module runs alone at full length."""

from __future__ import annotations

import subprocess
import sys

BRIEF = {
    "imports": ["--runs", "10"],
    "precision": ["--runs", "50"],
    "establish": ["--runs", "5", "--rival-runs", "2", "--rtt", "20", "80", "--apart", "0", "45", "500"],
    "many": ["--connects", "1", "1000"],
    "clock": ["--trials", "100"],
    "simulate": ["rate", "validate", "--cells", "8", "--runs", "3"],
}


def main() -> int:
    status = 0
    for name, options in BRIEF.items():
        print(f"\n== {name} {' '.join(options)}", flush=True)
        status |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
