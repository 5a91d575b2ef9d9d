"""The leak audit: what could make an evaluation look better than it is, looked for in every one. The list is `docs/leaks.md`.

`audit` looks at one evaluation. `fold_invariance`, `probe_invariance` and `label_invariance` look at code: whether features,
probes and choices depend on what they are tested on.
"""

from ssl4neuro.evaluate.audit.audit import audit, copied_scans, summary
from ssl4neuro.evaluate.audit.invariance import fold_invariance, label_invariance, probe_invariance

__all__ = ["audit", "copied_scans", "fold_invariance", "label_invariance", "probe_invariance", "summary"]
