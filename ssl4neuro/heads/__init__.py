"""Heads that answer pixel by pixel: what the encoders' maps, or the frames, say about the first frame of a clip.

A new head is an `nn.Module` built as `Head(encoders=..., classes=..., frames=..., channels=..., **options)` with
`forward(x, valid, residual) -> Segmented` (see `ssl4neuro.heads.segmented.SegmentationHead`), one line here, and one line in
`tests/heads/test_head_contract.py`, which then checks it.
"""

from ssl4neuro.heads.mvo import SpatioTemporalSegNet
from ssl4neuro.heads.segmentation_loss import LossConfig, SegmentationLoss
from ssl4neuro.heads.segmented import SegmentationHead, Segmented
from ssl4neuro.heads.unet import ClipUNet, FrameUNet

HEADS: dict[str, type] = {
    "mvo": SpatioTemporalSegNet,
    "unet": FrameUNet,
    "unet3d": ClipUNet,
}

__all__ = [
    "HEADS",
    "ClipUNet",
    "FrameUNet",
    "LossConfig",
    "SegmentationHead",
    "SegmentationLoss",
    "Segmented",
    "SpatioTemporalSegNet",
]
