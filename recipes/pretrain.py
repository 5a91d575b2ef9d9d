"""Pretrain encoders: accelerate launch recipes/pretrain.py [RECIPE] [--data COHORT] [--out RUN] [--any.field value].

RECIPE is a YAML file or the name of a shipped one (`ssl4neuro recipes list`). Without any argument this runs the quick start.
"""

import sys

from ssl4neuro.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
