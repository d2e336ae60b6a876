"""The command `simopen`, which is `python -m simopen`: Ctrl-C is seen to first, since the rest takes 0.2 s to load."""

import sys


def main() -> int:
    """Run the command that was typed, as a process of its own. Returns the exit status."""
    try:
        from simopen.cli.interrupts import leave_at_once

        leave_at_once()
    except KeyboardInterrupt:  # in these 2 ms
        print("simopen: interrupted", file=sys.stderr)
        return 130
    from simopen.cli import main

    return main.main()


if __name__ == "__main__":
    sys.exit(main())
