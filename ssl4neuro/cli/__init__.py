"""The command line: every command is a function in one of these modules, imports what it needs when it runs, and fails in
one line.

Exit status: 0 done, 1 `doctor` found something fatal, 2 the user can put something right, 130 interrupted (everything saved).
"""

import sys
from collections.abc import Sequence

import tyro

from ssl4neuro.cli import compare, doctor, evaluate, explain, predict, prepare, pretrain, recipes, report, retrieve, simulate  # noqa: F401 (they register)
from ssl4neuro.cli.apps import GROUPS, app
from ssl4neuro.cli.finetune import ablate_command, finetune_command
from ssl4neuro.cli.pretrain import pretrain_command
from ssl4neuro.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has gone
        sys.stderr.close()
        return 0


def _dispatch(words: list[str]) -> int:
    if words and words[0] in OWN_PARSER:
        return OWN_PARSER[words[0]](words[1:])
    if words and words[0] in GROUPS:
        return GROUPS[words[0]].cli(args=words[1:], prog=f"ssl4neuro {words[0]}")
    if words and words[0] == "--version":
        from ssl4neuro import __version__

        print(__version__)
        return 0
    return app.cli(args=words or ["--help"], prog="ssl4neuro", description=DESCRIPTION, config=(tyro.conf.OmitArgPrefixes,))


OWN_PARSER = {"pretrain": pretrain_command, "finetune": finetune_command, "ablate": ablate_command}  # they read recipes
DESCRIPTION = """Self-supervised representations of resting-state fMRI and cine: prepare, pretrain, embed, probe, retrieve."""
