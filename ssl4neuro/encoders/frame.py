"""2-D residual network per frame (He et al., CVPR 2016), pooled over the valid frames; feature maps for dense heads."""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssl4neuro.encoders.norms import STATISTICS, Norm, norm_layer
from ssl4neuro.encoders.pooling import AttentionPool
from ssl4neuro.encoders.temporal import TemporalTransformer
from ssl4neuro.encoders.transformer import keep_valid, valid_mean
from ssl4neuro.encoders.weights import fit_channels, load_into, public_weights
from ssl4neuro.types import Encoding

SMALLEST_SIDE = 32  # pixels; five halvings leave one


class FrameEncoder(nn.Module):
    """Encode clips [N, channels, T, H, W] frame by frame (methods/mvo.md §2).

    Frames are folded into the batch; those that are not valid are left out, so that padding influences nothing, not even the
    statistics of batch norm. Group norm (the default) lets no frame influence another before the pooling.

    Args:
        dim: features of a frame and of the output; even, and a multiple of `heads`, where the pooling asks for it.
        body: "tiny" is a small network of torchvision's basic blocks.
        in_channels: of the clips.
        norm: batch statistics mix the frames of all clips, and a checkpoint's running ones are used for embedding.
        pool: over valid frames: mean; mean and standard deviation and a linear layer; attention; or a temporal transformer
            (frame times in s) and then the mean.
        heads: of attention and transformer.
        depth: blocks of the transformer.
        channels_last: memory format of the feature maps.
        weights: public weights of the body (see `encoders/weights.py`), e.g. `ResNet18_Weights.IMAGENET1K_V1`; a one-channel
            stem gets the sum of the colour kernels. They were made with batch norm: `norm="batch"` uses them as they are, group
            norm keeps kernels and gains and drops the statistics.
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {"dim": 64, "body": "tiny"},
        "small": {"dim": 128, "body": "resnet18", "pool": "transformer"},
        "base": {"dim": 256, "body": "resnet50"},
    }

    def __init__(
        self,
        dim: int = 128,
        body: Literal["tiny", "resnet18", "resnet50"] = "resnet18",
        in_channels: int = 1,
        norm: Norm = "group",
        pool: Literal["mean", "mean_std", "attention", "transformer"] = "mean",
        heads: int = 4,
        depth: int = 2,
        channels_last: bool = False,
        weights: str | None = None,
    ):
        super().__init__()
        self.dim, self.pooling, self.in_channels = dim, pool, in_channels
        self.body = _Body(body, in_channels, norm)
        self.head = nn.Linear(self.body.widths[-1], dim)
        self.pool: nn.Module | None = None
        if pool == "mean_std":
            self.pool = nn.Linear(2 * dim, dim)
        elif pool == "attention":
            self.pool = AttentionPool(dim, heads)
        elif pool == "transformer":
            self.pool = TemporalTransformer(dim, depth, heads)
        if weights is not None:
            _load_body(self.body, weights, in_channels, norm)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.body.to(memory_format=self.memory_format)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the five `levels`."""
        return self.body.widths

    def forward(
        self,
        x: Float[Tensor, "batch channels time height width"],
        valid: Bool[Tensor, "batch time"] | None = None,
        rate: Float[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
        times: Float[Tensor, "batch time"] | None = None,
    ) -> Encoding:
        """`tokens` [N, T, dim] are frame features, `levels` [N, T, channels, rows, columns] maps at strides 2, 4, 8, 16, 32.

        Both are 0 at invalid frames. `rate` is the frame interval (s), `times` those of the frames (s); NaN where unknown.

        Raises:
            ValueError: frames with a side below 32 pixels.
        """
        if min(x.shape[3:]) < SMALLEST_SIDE:
            raise ValueError(f"frames of {tuple(x.shape[3:])} pixels; every side must be at least {SMALLEST_SIDE}: pad them")
        levels = self._levels(x.transpose(1, 2), valid)
        tokens = keep_valid(self.head(levels[-1].mean((3, 4))), valid)
        if self.pooling == "transformer":
            tokens = self.pool(tokens, valid, rate, times)  # type: ignore[misc]
        return Encoding(pooled=self._pooled(tokens, valid), tokens=tokens, levels=tuple(levels))

    def _levels(self, frames: Tensor, valid: Tensor | None) -> list[Tensor]:
        """The body's maps of the valid frames, unfolded to [N, T, ...] with zeros at the others."""
        n, t = frames.shape[:2]
        if valid is None or bool(valid.all()):
            return [m.unflatten(0, (n, t)) for m in self._maps(frames.flatten(0, 1))]
        if bool(valid.any()):
            return [m.new_zeros(n, t, *m.shape[1:]).index_put((valid,), m) for m in self._maps(frames[valid])]
        # A modality that nobody in the batch has: zeros, by way of the network, so that every parameter has a gradient.
        return [(m * 0)[None].expand(n, t, *m.shape[1:]) for m in self._maps(torch.zeros_like(frames[0, :1]))]

    def _maps(self, flat: Tensor) -> list[Tensor]:
        return self.body(flat.contiguous(memory_format=self.memory_format))

    def _pooled(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        mean = valid_mean(tokens, valid)
        if self.pooling == "attention":
            mask = None if valid is None else valid[:, None].to(tokens.dtype)
            return self.pool(tokens.transpose(1, 2), mask)  # type: ignore[misc]
        if self.pooling == "mean_std":
            variance = valid_mean((tokens - mean[:, None]).float().square(), valid)
            sd = (variance + 1e-6).sqrt()  # one frame has none: no infinite gradient at 0
            return self.pool(torch.cat([mean, sd.to(mean.dtype)], dim=1))  # type: ignore[misc]
        return mean


class _Body(nn.Module):
    """torchvision's residual networks without the classifier, under its names of parameters; every stage is a level."""

    def __init__(self, body: str, in_channels: int, norm: Norm):
        super().__init__()
        block, blocks, planes, stem = {
            "tiny": (BasicBlock, (1, 1, 1, 1), (24, 32, 48, 64), 16),
            "resnet18": (BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), 64),
            "resnet50": (Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), 64),
        }[body]
        make = norm_layer(norm)
        self.conv1 = nn.Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = make(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        width, widths = stem, [stem]
        for i, (count, plane) in enumerate(zip(blocks, planes, strict=True)):
            stage = []
            for j in range(count):
                stride = 2 if i and j == 0 else 1
                stage.append(_block(block, width, plane, stride, make))
                width = plane * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            widths.append(width)
        self.widths = tuple(widths)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(levels[0])
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            levels.append(x)
        return levels


def _block(block: type[BasicBlock] | type[Bottleneck], width: int, plane: int, stride: int, make: Any) -> nn.Module:
    out = plane * block.expansion
    shortcut = None
    if stride != 1 or width != out:
        shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride=stride, bias=False), make(out))
    return block(width, plane, stride, shortcut, norm_layer=make)


def _load_body(body: _Body, weights: str, in_channels: int, norm: Norm) -> None:
    """Public weights into the body; the classifier is left aside, batch statistics too under group norm."""
    state = public_weights(weights)
    if state is None:
        return
    if "conv1.weight" in state:
        state["conv1.weight"] = fit_channels(state["conv1.weight"], in_channels)
    load_into(body, state, weights, ignore=("fc.", *(STATISTICS if norm == "group" else ())))
