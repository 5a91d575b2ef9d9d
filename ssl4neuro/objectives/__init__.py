"""What is optimised. A new objective: one file like `infonce.py` (a function on tensors, and a module that takes the model and
a batch) and one line in `OBJECTIVES`; the contract test in `tests/objectives` picks it up.

An objective has `needs`, the (modality, level) pairs it compares, and, if it looks at labels, `label_columns`. Samples of one
subject are never negatives unless an option or a label column asks for it.
"""

from torch import nn

from ssl4neuro.objectives.infonce import InfoNCE
from ssl4neuro.objectives.negatives import NoNegatives
from ssl4neuro.objectives.paired import PairedInfoNCE
from ssl4neuro.objectives.redundancy import BarlowTwins, VICReg
from ssl4neuro.objectives.siglip import SigLIP
from ssl4neuro.objectives.supcon import SupCon

OBJECTIVES: dict[str, type[nn.Module]] = {
    "infonce": InfoNCE,
    "siglip": SigLIP,
    "supcon": SupCon,
    "paired": PairedInfoNCE,
    "vicreg": VICReg,
    "barlow_twins": BarlowTwins,
}

__all__ = ["OBJECTIVES", "BarlowTwins", "InfoNCE", "NoNegatives", "PairedInfoNCE", "SigLIP", "SupCon", "VICReg"]
