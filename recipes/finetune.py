"""Fine-tune a head: accelerate launch recipes/finetune.py RECIPE --data COHORT --out RUN [--init PRETRAINED].

RECIPE is a YAML file or the name of a shipped one (`ssl4neuro recipes list`).
"""

import sys

from ssl4neuro.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
