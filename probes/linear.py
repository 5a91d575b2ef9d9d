"""Linear probe of frozen embeddings on unseen subjects.

python probes/linear.py EMBEDDINGS --target COLUMN --out DIR [...]
"""

import sys

from ssl4neuro.cli import main

if __name__ == "__main__":
    sys.exit(main(["probe", *sys.argv[1:], "--probe", "linear"]))
