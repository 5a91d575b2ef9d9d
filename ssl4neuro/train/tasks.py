"""What `finetune` can train. A recipe names one as `task`; a new one is a configuration class, a function, and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl4neuro.evaluate.network_state import render_study
from ssl4neuro.train.ablate import ablate
from ssl4neuro.train.finetune import finetune
from ssl4neuro.train.finetune_config import FinetuneConfig
from ssl4neuro.train.finetune_results import render_results
from ssl4neuro.train.network_state import RESULTS, network_state
from ssl4neuro.train.network_state_ablate import ablate_network_state
from ssl4neuro.train.network_state_config import NetworkStateConfig

DEFAULT = "segmentation"


@dataclass(frozen=True)
class TrainingTask:
    """One kind of fine-tuning.

    Attributes:
        config: dataclass of its recipes.
        run: trains and tests; the run folder, or with `estimate` what it will take.
        render: the results of a run folder as text.
        ablate: trains the variants of a recipe, all tables or some; the folder of all.
    """

    config: type
    run: Callable[[Any], Any]
    render: Callable[[Path], str]
    ablate: Callable[[Any, list[str]], Path]


TASKS: dict[str, TrainingTask] = {
    "segmentation": TrainingTask(FinetuneConfig, finetune, render_results, ablate),
    "network_state": TrainingTask(
        NetworkStateConfig, network_state, lambda run: render_study(run / RESULTS), ablate_network_state
    ),
}
