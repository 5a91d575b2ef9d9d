"""Train the network-state head on fixed features, for as many epochs as the inner splits want (network_state.md §5)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from ssl4neuro.evaluate.network_state.compact import Fitted
from ssl4neuro.evaluate.network_state.part import Part, cell_loss
from ssl4neuro.heads.network_state import HeadConfig, NetworkStateHead


class HeadScorer:
    """Heads per network, or one with the network's code, trained together so that one number of epochs serves all."""

    def __init__(self, config: HeadConfig, heads: Fitted = "per network") -> None:
        self.config, self.heads = config, heads

    def choose(
        self, parts: Sequence[Part], weight: float = 1.0, seed: int = 0
    ) -> tuple[dict[str, Any], list[Float[np.ndarray, "_"]]]:
        """Options for `score`, and the held-out logits of every inner split at the chosen epoch.

        Training stops when the loss of the inner splits has not fallen for `patience` epochs; without a split it takes a
        third of the epochs.

        Args:
            weight: initial weight of the embedding's columns; see `LogisticScorer`, which finds it.
        """
        options: dict[str, Any] = {"epochs": max(1, self.config.epochs // 3), "weight": weight}
        if not parts:
            return options, []
        trainings = [_Ensemble(part, self.config, self.heads, weight, seed + i) for i, part in enumerate(parts)]
        best, found, kept = np.inf, 0, [np.zeros(len(part.test)) for part in parts]
        for epoch in range(1, self.config.epochs + 1):
            logits = [training.epoch() for training in trainings]
            loss = float(np.mean([cell_loss(part, z) for part, z in zip(parts, logits, strict=True)]))
            if loss < best:
                best, found, kept = loss, epoch, logits
            elif epoch - found >= self.config.patience:
                break
        return {**options, "epochs": found}, kept

    def score(self, part: Part, options: dict[str, Any], seed: int = 0) -> Float[np.ndarray, "test"]:
        """Logits of the rows that did not train."""
        training = _Ensemble(part, self.config, self.heads, options["weight"], seed)
        logit = np.zeros(len(part.test))
        for _ in range(options["epochs"]):
            logit = training.epoch()
        return logit


class _Ensemble:
    """Heads in training; torch's own generator is left as it was."""

    def __init__(self, part: Part, config: HeadConfig, heads: Fitted, weight: float, seed: int) -> None:
        self.part, self.config = part, config
        self.x, self.x_test = torch.from_numpy(part.train).float(), torch.from_numpy(part.test).float()
        self.y = torch.from_numpy(part.y).float()
        self.network, self.network_test = torch.from_numpy(part.network), torch.from_numpy(part.network_test)
        self.order = np.random.default_rng([seed, 0x4EAD])
        codes = np.unique(part.network) if heads == "per network" else np.array([-1])
        networks = int(max(part.network.max(), part.network_test.max(), 0)) + 1 if heads == "shared" else 0
        gain = self.x.std(0, correction=0)  # batch norm would undo the equal variance of the blocks
        gain[: part.embedded] *= weight
        gain *= (len(gain) / gain.square().sum().clamp_min(1e-12)).sqrt()
        self.members: list[tuple[NetworkStateHead, torch.optim.Optimizer, np.ndarray, torch.Tensor]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for code in codes.tolist():
                train = np.flatnonzero(part.network == code) if code >= 0 else np.arange(len(part.train))
                test = self.network_test == code if code >= 0 else torch.ones(len(part.test), dtype=torch.bool)
                for _ in range(config.ensemble if len(train) > 1 else 0):
                    head = NetworkStateHead(self.x.shape[1], config.hidden, config.dropout, networks, gain)
                    optimiser = torch.optim.Adam(head.parameters(), config.rate, weight_decay=config.weight_decay)
                    self.members.append((head, optimiser, train, test))
            self.state = torch.get_rng_state()

    def epoch(self) -> Float[np.ndarray, "test"]:
        """Once over the training rows; the mean logit of the members afterwards."""
        total = torch.zeros(len(self.part.test))
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.state)
            for head, optimiser, train, test in self.members:
                head.train()
                for rows in self._batches(train):
                    optimiser.zero_grad(set_to_none=True)
                    logit = head(self.x[rows], self.network[rows])
                    nn.functional.binary_cross_entropy_with_logits(logit, self.y[rows]).backward()
                    optimiser.step()
                head.eval()
                with torch.no_grad():
                    total[test] += head(self.x_test[test], self.network_test[test]) / self.config.ensemble
            self.state = torch.get_rng_state()
        return total.numpy().astype(np.float64)

    def _batches(self, train: np.ndarray) -> list[torch.Tensor]:
        """Shuffled batches of nearly equal size: batch norm cannot take a single row."""
        count = max(1, round(len(train) / self.config.batch_size))
        return [torch.from_numpy(part) for part in np.array_split(self.order.permutation(train), count)]
