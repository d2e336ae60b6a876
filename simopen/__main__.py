"""`python -m simopen` is the command `simopen`."""

import sys

from simopen.cli import main

if __name__ == "__main__":
    sys.exit(main())
