"""Which tubelets of a clip are hidden from the encoder, and where the others are.

A tubelet is a box of frames, rows and columns: one token. Tokens are numbered time first, then row, then column; `grid` is
their number along each axis. Random numbers come from torch's global generator of the CPU, so that a seed hides the same
tubelets on every device.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Mode = Literal["tube", "random", "block"]
Grid = tuple[int, int, int]


def uniform(*shape: int) -> Float[Tensor, "*shape"]:
    """The only source of randomness of masked and temporal objectives; one line of numbers per clip."""
    return torch.rand(*shape)


def draw_masked(
    mode: Mode, ratio: float, grid: Grid, valid: Bool[Tensor, "n tokens"], preferred: Bool[Tensor, "n places"] | None = None
) -> Bool[Tensor, "n tokens"]:
    """Hidden tokens, all of them valid: a share `ratio` of each clip's, rounded, but never none and never all.

    Args:
        mode: `tube` hides the same places (row, column) at all times; `block` too, and the places hang together; `random`
            hides tokens one by one.
        preferred: places that are hidden before any other; in `block` mode the block lies around one of them.
    """
    n, places = len(valid), grid[1] * grid[2]
    bonus = valid.new_zeros(n, places) if preferred is None else preferred
    if mode == "random":
        scores = uniform(n, valid.shape[1]).to(valid.device) + bonus.repeat(1, grid[0])
        return highest(scores, valid, hidden_count(ratio, valid.sum(1)))
    everywhere = torch.ones_like(bonus)
    scores = uniform(n, places).to(valid.device) + bonus
    if mode == "block":
        scores = _nearness(scores.argmax(1), grid, uniform(n, places + 1).to(valid.device))
    chosen = highest(scores, everywhere, hidden_count(ratio, everywhere.sum(1)))
    return chosen.repeat(1, grid[0]) & valid


def hidden_count(ratio: float, total: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """`ratio` of `total`, rounded, at least 1 and at most all but one (0 of 1)."""
    return (ratio * total.double()).round().long().clamp_min(1).minimum(total - 1).clamp_min(0)


def highest(
    scores: Float[Tensor, "n items"], eligible: Bool[Tensor, "n items"], count: Int[Tensor, "n"]
) -> Bool[Tensor, "n items"]:
    """The `count` eligible items of each line with the highest scores."""
    order = scores.masked_fill(~eligible, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(dim=1) < count[:, None]) & eligible


def _nearness(centre: Int[Tensor, "n"], grid: Grid, draws: Float[Tensor, "n draws"]) -> Float[Tensor, "n places"]:
    """Minus the distance from `centre`, in a box of random aspect ratio between 2:3 and 3:2; ties are broken at random."""
    place = torch.arange(grid[1] * grid[2], device=centre.device)
    stretch = 1.5 ** (2 * draws[:, :1] - 1)
    down = (place // grid[2] - centre[:, None] // grid[2]).abs() * stretch
    across = (place % grid[2] - centre[:, None] % grid[2]).abs() / stretch
    return -torch.maximum(down, across) + 1e-3 * draws[:, 1:]


def draw_dropped(study: Int[Tensor, "n"], share: float) -> Bool[Tensor, "n"]:
    """Clips to hide wholly: of a study with m clips, m × share rounded up or down at random, and never all of them."""
    draws = uniform(len(study), 2).to(study.device)
    together = study[:, None] == study
    size = together.sum(1)
    first = together.int().argmax(1) if len(study) else study  # one draw for the whole study
    count = (share * size + draws[first, 1]).floor().long().minimum(size - 1)
    rank = (together & (draws[None, :, 0] < draws[:, None, 0])).sum(1)
    return rank < count


def draw_blocks(
    grid: Grid,
    valid: Bool[Tensor, "n tokens"],
    blocks: int,
    area: float,
    duration: float,
    aspect: tuple[float, float],
    context: float,
) -> Bool[Tensor, "n tokens"]:
    """Hidden tokens: the union of space-time boxes inside the valid time of each clip.

    A box that would leave less than a share `context` of the clip's valid tokens (or none) is left out.

    Args:
        area: share of rows × columns of a box; `duration`: share of the valid time.
        aspect: smallest and largest rows per column of a box.
    """
    steps, rows, columns = grid
    lasting = valid.view(len(valid), steps, rows * columns).any(2).sum(1)
    least = (context * valid.sum(1).double()).ceil().clamp_min(1)
    hidden = torch.zeros_like(valid)
    for draws in uniform(len(valid), blocks, 4).to(valid.device).unbind(1):
        ratio = aspect[0] * (aspect[1] / aspect[0]) ** draws[:, 0]
        place = area * rows * columns
        spans = (
            _span(steps, (duration * lasting).round().clamp_min(1), lasting, draws[:, 1])[:, :, None, None],
            _span(rows, (place * ratio).sqrt().round().clamp(1, rows), rows, draws[:, 2])[:, None, :, None],
            _span(columns, (place / ratio).sqrt().round().clamp(1, columns), columns, draws[:, 3])[:, None, None, :],
        )
        union = hidden | ((spans[0] & spans[1] & spans[2]).flatten(1) & valid)
        enough = (valid & ~union).sum(1) >= least
        hidden = torch.where(enough[:, None], union, hidden)
    return hidden


def _span(size: int, length: Tensor, end: Tensor | int, draws: Float[Tensor, "n"]) -> Bool[Tensor, "n size"]:
    """`length` neighbours, uniformly placed among the first `end` positions of `size`."""
    start = (draws * (end - length + 1)).floor()
    position = torch.arange(size, device=draws.device)
    return (position >= start[:, None]) & (position < (start + length)[:, None])


def keep_tokens(hidden: Bool[Tensor, "n tokens"], valid: Bool[Tensor, "n tokens"]) -> Int[Tensor, "n kept"]:
    """Tokens that the encoder is given: none of the hidden ones, and equally many of every clip, in ascending order.

    Clips with fewer visible tokens are filled up with padding, which the encoder ignores; where a clip has no padding for
    that, the others lose visible tokens at random, as in I-JEPA.
    """
    n, tokens = hidden.shape
    extra = uniform(n, tokens).to(hidden.device)
    if n == 0:
        return torch.zeros(0, 1, dtype=torch.long, device=hidden.device)
    visible = valid & ~hidden
    count = max(1, min(int(visible.sum(1).max()), int((~hidden).sum(1).min())))
    scores = extra + 2 * visible.to(extra.dtype) + (~valid).to(extra.dtype)
    return scores.topk(count, dim=1).indices.sort(1).values


def sinusoids(position: Float[Tensor, "*shape"], dim: int) -> Float[Tensor, "*shape dim"]:
    """Sines and cosines of wavelengths from 2π to 2π × 10,000 (Vaswani et al., arXiv 1706.03762); an odd `dim` ends in 0."""
    wavelength = 10_000 ** (torch.arange(dim // 2, device=position.device) / max(dim // 2, 1))
    angle = position[..., None] / wavelength
    return torch.nn.functional.pad(torch.cat([angle.sin(), angle.cos()], dim=-1), (0, dim % 2))


def grid_positions(grid: Grid, dim: int, device: torch.device) -> Float[Tensor, "tokens dim"]:
    """Sinusoids of time step, row and column of each token, a third of the features each; what is left over is 0.

    Steps, not seconds: the encoder's tokens carry the times.
    """
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in grid]
    place = torch.cartesian_prod(*axes)
    parts = [sinusoids(place[:, axis], 2 * (dim // 6)) for axis in range(3)]
    return torch.nn.functional.pad(torch.cat(parts, dim=-1), (0, dim - 6 * (dim // 6)))
