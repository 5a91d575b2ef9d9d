"""Cross-modal retrieval of unseen subjects, both directions, beside chance.

python probes/retrieval.py EMBEDDINGS [--from course --to map]
"""

import sys

from ssl4neuro.cli import main

if __name__ == "__main__":
    sys.exit(main(["retrieve", *sys.argv[1:]]))
