"""`python -m crossvox`: the program `crossvox`."""

import sys

from crossvox.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
