"""Encoders, projectors and their fusion.

A new encoder is an `nn.Module` with keyword options, `dim` and `forward(x, valid, rate, group) -> Encoding` (see
`ssl4neuro.types.Encoder`), one line here, and one sample input in
`tests/encoders/test_encoder_contract.py`, which then checks it.
"""

from ssl4neuro.encoders.course import CourseConv
from ssl4neuro.encoders.fusion import Fusion
from ssl4neuro.encoders.projector import MLPProjector
from ssl4neuro.encoders.readout import SessionReadout
from ssl4neuro.encoders.session import CourseSession
from ssl4neuro.encoders.volume import VolumeResNet

ENCODERS: dict[str, type] = {
    "volume_resnet": VolumeResNet,
    "course_conv": CourseConv,
    "course_session": CourseSession,
}

PROJECTORS: dict[str, type] = {
    "mlp": MLPProjector,
}

__all__ = ["ENCODERS", "PROJECTORS", "CourseConv", "CourseSession", "Fusion", "MLPProjector", "SessionReadout", "VolumeResNet"]
