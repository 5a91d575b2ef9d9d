"""Random numbers that are a pure function of (seed, epoch, row, view, name, position): nothing is drawn in sequence.

A sample's augmentation must not depend on which batch, loader worker or process it lands in, nor on what was drawn before
it, or a resumed run would differ from an uninterrupted one (DESIGN §5, promise 3). Hence a counter-based generator: the key
is hashed with the finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014), and number `e` of a row's stream is the hash
of `key + e * gamma`. Everything is elementwise int64 arithmetic on the device of the rows, and the floats come from
correctly rounded operations and one table, so the bits do not depend on threads or on vector lengths.
"""

import functools
import hashlib
import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1
_TABLE_BITS = 16


def _signed(value: int) -> int:
    """The int64 with the bits of a 64-bit unsigned integer (torch has no uint64 arithmetic)."""
    return value - (1 << 64) if value >> 63 else value


def _mix_scalar(z: int) -> int:
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's `>>` on int64 is arithmetic, so the sign bits are masked away."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """splitmix64's finaliser on an int64 tensor of its own (overwritten)."""
    z = z.bitwise_xor_(_shift(z, 30)).mul_(_signed(_MIX_1))
    z = z.bitwise_xor_(_shift(z, 27)).mul_(_signed(_MIX_2))
    return z.bitwise_xor_(_shift(z, 31))


@functools.cache
def _normal_table(device: torch.device) -> Tensor:
    """Mid-point quantiles of the standard normal at 2^16 equal probabilities, scaled to variance 1 exactly."""
    size = 1 << _TABLE_BITS
    table = torch.special.ndtri((torch.arange(size, dtype=torch.float64) + 0.5) / size)
    return (table / table.square().mean().sqrt()).float().to(device)


class Keyed:
    """A stateless generator for a batch of rows.

    Args:
        seed: of the run.
        epoch: 0-based.
        rows: int64 key of each sample, [n]: rows of the cohort, or group codes for draws that a scan's rows share.
        view: which augmented copy, one for all rows or one per row, [n].
        device: where the numbers are made; default that of `rows`.

    The same (seed, epoch, row, view, name) gives the same bits whatever else is in the batch. A longer `shape` continues
    a shorter one: the first k of m numbers are the k numbers, so padding does not change what real positions get.
    """

    def __init__(
        self,
        seed: int,
        epoch: int,
        rows: Int[Tensor, "n"],
        view: int | Int[Tensor, "n"] = 0,
        device: torch.device | str | None = None,
    ):
        self.rows = rows.to(device=device if device is not None else rows.device, dtype=torch.int64)
        self.view = view.to(self.rows) if isinstance(view, Tensor) else view
        self._key = _mix_scalar((_mix_scalar((seed + _GAMMA) & _MASK) + (epoch + 1) * _GAMMA) & _MASK)

    @property
    def device(self) -> torch.device:
        """Where the numbers are made."""
        return self.rows.device

    def __len__(self) -> int:
        return len(self.rows)

    def _derive(self, rows: Tensor, view: int | Tensor, key: int) -> "Keyed":
        other = object.__new__(Keyed)
        other.rows, other.view, other._key = rows.to(self.rows), view, key
        return other

    def with_rows(self, rows: Int[Tensor, "n"]) -> "Keyed":
        """The same seed, epoch and view for other row keys, e.g. group codes: equal keys draw equal numbers."""
        return self._derive(rows, self.view, self._key)

    def with_view(self, view: int | Int[Tensor, "n"]) -> "Keyed":
        """The same rows with another view, e.g. a constant for draws that both views of a pair share."""
        return self._derive(self.rows, view.to(self.rows) if isinstance(view, Tensor) else view, self._key)

    def child(self, name: str) -> "Keyed":
        """An independent generator, e.g. one per modality, so that two augmentations of a kind do not draw alike."""
        return self._derive(self.rows, self.view, self._fold(name))

    def _fold(self, name: str) -> int:
        code = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        return _mix_scalar((self._key ^ code) & _MASK)

    def bits(self, name: str, shape: tuple[int, ...] = ()) -> Int[Tensor, "n *shape"]:
        """64 random bits as int64 for each row and position of `shape`, [n, *shape]."""
        base = self.rows * _signed(_GAMMA) + _signed(self._fold(name))
        base = _mix(base)
        view = self.view * _signed(_GAMMA) if isinstance(self.view, Tensor) else _signed((self.view * _GAMMA) & _MASK)
        base = _mix(base ^ view)
        counter = torch.arange(1, math.prod(shape) + 1, device=self.device) * _signed(_GAMMA)
        return _mix(base[:, None] + counter).view(len(self.rows), *shape)

    def uniform(
        self,
        name: str,
        shape: tuple[int, ...] = (),
        low: float | Float[Tensor, "..."] = 0.0,
        high: float | Float[Tensor, "..."] = 1.0,
    ) -> Float[Tensor, "n *shape"]:
        """float32 uniform in [low, high), [n, *shape]; 24 random bits each. Bounds may be tensors that broadcast."""
        unit = _shift(self.bits(name, shape), 40).float() * 2.0**-24
        return unit * (high - low) + low

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Float[Tensor, "n *shape"]:
        """float32 standard normal, [n, *shape].

        Each number is the normal quantile of 16 random bits (65,536 values, |x| < 4.2, variance exactly 1): as good as any for
        augmentation, four numbers to a hash, and free of log and cos, whose last bit depends on the place in a vector register.
        """
        count = math.prod(shape)
        index = self.bits(name, (-(-count // 4),)).view(torch.int16).to(torch.int32).add_(1 << (_TABLE_BITS - 1))
        values = _normal_table(self.device).index_select(0, index.view(-1)).view(len(self.rows), -1)
        return values[:, :count].reshape(len(self.rows), *shape)

    def integers(
        self,
        name: str,
        shape: tuple[int, ...] = (),
        low: int | Int[Tensor, "..."] = 0,
        high: int | Int[Tensor, "..."] = 2,
    ) -> Int[Tensor, "n *shape"]:
        """int64 uniform in [low, high), [n, *shape]; bounds may be tensors that broadcast; high - low at most 2^31."""
        unit = _shift(self.bits(name, shape), 33)  # 31 bits, so that the product stays below 2^62
        return low + ((unit * (high - low)) >> 31)

    def bernoulli(
        self, name: str, shape: tuple[int, ...] = (), p: float | Float[Tensor, "..."] = 0.5
    ) -> Bool[Tensor, "n *shape"]:
        """True with probability `p`, [n, *shape]."""
        return self.uniform(name, shape) < p


def expand(values: Shaped[Tensor, "n"], ndim: int) -> Shaped[Tensor, "n ..."]:
    """One number per sample with trailing axes of length 1, so that it broadcasts over a tensor with `ndim` axes."""
    return values.view(-1, *[1] * (ndim - 1))
