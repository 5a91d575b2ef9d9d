"""Running mean, standard deviation, minimum and maximum of values that do not fit into memory together."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Moments:
    """Add arrays one after the other, then ask for a summary."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, values: np.ndarray) -> None:
        """Count all elements of an array that has at least one."""
        wide = values.astype(np.float64)
        self.count += wide.size
        self.total += float(wide.sum())
        self.squares += float((wide**2).sum())
        self.low, self.high = min(self.low, float(wide.min())), max(self.high, float(wide.max()))

    def summary(self) -> dict[str, float]:
        """`mean`, `sd`, `min`, `max`, to six decimals."""
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean**2, 0.0)
        values = {"mean": mean, "sd": variance**0.5, "min": self.low, "max": self.high}
        return {name: round(value, 6) for name, value in values.items()}
