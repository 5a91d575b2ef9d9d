"""The U-Nets: what they look at, and that they are no smaller than what they are compared with."""

import pytest
import torch

from ssl4neuro.encoders import FrameEncoder
from ssl4neuro.heads import ClipUNet, FrameUNet, SpatioTemporalSegNet

TINY = FrameUNet.PRESETS["tiny"]


def clips(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 1, 4, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_the_flat_one_sees_the_first_frame_only():
    head, x = FrameUNet({}, 2, 4, **TINY).eval(), clips()
    other = clips(1)
    other[:, :, 0] = x[:, :, 0]
    assert torch.equal(head(x).logits, head(other).logits)
    assert torch.equal(head(x[:, :, :1]).logits, head(x).logits)


@pytest.mark.parametrize("frame", range(4))
def test_the_other_sees_every_frame(frame):
    head, x = ClipUNet({}, 2, 4, **TINY).eval(), clips()
    other = x.clone()
    other[:, :, frame] += clips(1)[:, :, 0]
    assert (head(x).logits - head(other).logits).abs().max() > 1e-3


def test_the_first_frame_is_the_one_that_is_read():
    # With kernels that do not reach across frames, only the frame that is read matters.
    head, x = ClipUNet({}, 2, 4, widths=(4, 8)).eval(), clips()
    for part in head.modules():
        if isinstance(part, torch.nn.Conv3d | torch.nn.ConvTranspose3d) and part.kernel_size[0] == 3:
            part.weight.data[:, :, [0, 2]] = 0
        if isinstance(part, torch.nn.InstanceNorm3d):
            part.forward = lambda y: y
    other = clips(1)
    other[:, :, 0] = x[:, :, 0]
    torch.testing.assert_close(head(x).logits, head(other).logits)


def test_sizes_of_the_tiny_ones_are_comparable():
    encoders = {name: FrameEncoder(dim=64, body="tiny") for name in ("cine", "motion")}
    net = SpatioTemporalSegNet(encoders, 2, 10, **SpatioTemporalSegNet.PRESETS["mvo_tiny"])
    sizes = [
        sum(p.numel() for p in head.parameters()) for head in (net, FrameUNet({}, 2, 10, **TINY), ClipUNet({}, 2, 10, **TINY))
    ]
    assert max(sizes) < 4 * min(sizes)
