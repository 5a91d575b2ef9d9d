"""Encoders, projectors and their fusion.

A new encoder is an `nn.Module` with keyword options, `dim` and `forward(x, valid, rate, group, times) -> Encoding` (see
`ssl4neuro.types.Encoder`), one line here, and one sample input in
`tests/encoders/test_encoder_contract.py`, which then checks it.
"""

from ssl4neuro.encoders.clip import ClipEncoder
from ssl4neuro.encoders.course import CourseConv
from ssl4neuro.encoders.frame import FrameEncoder
from ssl4neuro.encoders.fusion import Fusion
from ssl4neuro.encoders.projector import Identity, MLPProjector
from ssl4neuro.encoders.readout import SessionReadout
from ssl4neuro.encoders.session import CourseSession
from ssl4neuro.encoders.tubelet import TubeletViT
from ssl4neuro.encoders.volume import VolumeResNet

ENCODERS: dict[str, type] = {
    "volume_resnet": VolumeResNet,
    "course_conv": CourseConv,
    "course_session": CourseSession,
    "frame": FrameEncoder,
    "clip": ClipEncoder,
    "tubelet_vit": TubeletViT,
}

PROJECTORS: dict[str, type] = {
    "mlp": MLPProjector,
    "identity": Identity,
}

__all__ = [
    "ENCODERS",
    "PROJECTORS",
    "ClipEncoder",
    "CourseConv",
    "CourseSession",
    "FrameEncoder",
    "Fusion",
    "Identity",
    "MLPProjector",
    "SessionReadout",
    "TubeletViT",
    "VolumeResNet",
]
