"""Self-supervised multimodal representations of resting-state fMRI, cine and video.

The public functions are imported when first used, so that `import ssl4neuro` and the command line answer at once.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl4neuro.data.prepare import prepare_courses, prepare_ica
    from ssl4neuro.data.prepare_clips import prepare_clips
    from ssl4neuro.errors import UserError
    from ssl4neuro.evaluate.embed import embed
    from ssl4neuro.evaluate.identify import identify_scans
    from ssl4neuro.evaluate.predict import predict
    from ssl4neuro.evaluate.probe import probe
    from ssl4neuro.pretrained import load
    from ssl4neuro.report import write_report
    from ssl4neuro.retrieve.index import build_index
    from ssl4neuro.retrieve.query import query
    from ssl4neuro.simulate.cine import simulate_cine
    from ssl4neuro.simulate.ica import simulate_ica
    from ssl4neuro.train.finetune import finetune
    from ssl4neuro.train.pretrain import pretrain

PUBLIC = {
    "UserError": "ssl4neuro.errors",
    "build_index": "ssl4neuro.retrieve.index",
    "embed": "ssl4neuro.evaluate.embed",
    "finetune": "ssl4neuro.train.finetune",
    "identify_scans": "ssl4neuro.evaluate.identify",
    "load": "ssl4neuro.pretrained",
    "prepare_clips": "ssl4neuro.data.prepare_clips",
    "prepare_courses": "ssl4neuro.data.prepare",
    "prepare_ica": "ssl4neuro.data.prepare",
    "predict": "ssl4neuro.evaluate.predict",
    "pretrain": "ssl4neuro.train.pretrain",
    "probe": "ssl4neuro.evaluate.probe",
    "query": "ssl4neuro.retrieve.query",
    "simulate_cine": "ssl4neuro.simulate.cine",
    "simulate_ica": "ssl4neuro.simulate.ica",
    "write_report": "ssl4neuro.report",
}

__version__ = version("ssl4neuro")
__all__ = [
    "UserError",
    "build_index",
    "embed",
    "finetune",
    "identify_scans",
    "load",
    "predict",
    "prepare_clips",
    "prepare_courses",
    "prepare_ica",
    "pretrain",
    "probe",
    "query",
    "simulate_cine",
    "simulate_ica",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'ssl4neuro' has no attribute '{name}'")
    return getattr(import_module(PUBLIC[name]), name)
