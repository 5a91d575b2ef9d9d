"""What is optimised. A new objective: one file like `infonce.py` (a function on tensors, and a module that takes the model and
a batch) and one line in `OBJECTIVES`; the contract test in `tests/objectives` picks it up.

An objective has `needs`, the (modality, level) pairs it compares, and, if it looks at labels, `label_columns`. Samples of one
subject are never negatives unless an option or a label column asks for it. An objective that feeds the encoders itself needs no
projections; `bind(encoders)`, called once, builds what has to fit them, `after_step(encoders, progress)` follows every step.
"""

from torch import nn

from ssl4neuro.objectives.change_aware import ChangeAware
from ssl4neuro.objectives.infonce import InfoNCE
from ssl4neuro.objectives.masked_clip import MaskedClip
from ssl4neuro.objectives.negatives import NoNegatives
from ssl4neuro.objectives.paired import PairedInfoNCE
from ssl4neuro.objectives.predictive import Predictive
from ssl4neuro.objectives.redundancy import BarlowTwins, VICReg
from ssl4neuro.objectives.siglip import SigLIP
from ssl4neuro.objectives.supcon import SupCon
from ssl4neuro.objectives.temporal_order import TemporalOrder

OBJECTIVES: dict[str, type[nn.Module]] = {
    "infonce": InfoNCE,
    "siglip": SigLIP,
    "supcon": SupCon,
    "paired": PairedInfoNCE,
    "change_aware": ChangeAware,
    "vicreg": VICReg,
    "barlow_twins": BarlowTwins,
    "masked_clip": MaskedClip,
    "predictive": Predictive,
    "temporal_order": TemporalOrder,
}

__all__ = [
    "OBJECTIVES",
    "BarlowTwins",
    "ChangeAware",
    "InfoNCE",
    "MaskedClip",
    "NoNegatives",
    "PairedInfoNCE",
    "Predictive",
    "SigLIP",
    "SupCon",
    "TemporalOrder",
    "VICReg",
]
