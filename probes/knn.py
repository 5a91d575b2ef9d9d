"""k nearest neighbours on frozen embeddings, unseen subjects.

python probes/knn.py EMBEDDINGS --target COLUMN --out DIR [...]
"""

import sys

from ssl4neuro.cli import main

if __name__ == "__main__":
    sys.exit(main(["probe", *sys.argv[1:], "--probe", "knn"]))
