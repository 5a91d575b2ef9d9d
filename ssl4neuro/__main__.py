"""`python -m ssl4neuro` and the `ssl4neuro` command."""

import sys

from ssl4neuro.cli import main

if __name__ == "__main__":
    sys.exit(main())
