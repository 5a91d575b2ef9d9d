"""Slow probes run in small blocks with the time left, and refuse what would take days."""

import numpy as np
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate import patience as module
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.mlp import MlpProbe
from ssl4neuro.evaluate.patience import Patience
from ssl4neuro.evaluate.probe import probe_arrays


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_time_left_is_told(clock: list[float]) -> None:
    told: list[str] = []
    patience = Patience("joint", MlpProbe(), 500, told.append)
    assert patience.at_once(100_000) == MlpProbe.columns_at_once
    assert patience.at_once(7) == 7
    clock[0] = 10.0
    patience.advance(50)
    clock[0] = 20.0
    patience.advance(50)
    assert told == ["joint: 50 of 500, 90 s left", "joint: 100 of 500, 80 s left"]


def test_what_takes_too_long_is_refused_with_what_would_do(clock: list[float]) -> None:
    patience = Patience("joint", MlpProbe(), 10_000, lambda text: None)
    clock[0] = 100.0
    with pytest.raises(
        UserError, match=r"10000 of 'joint' would take about 6 hours; use --permutations 7200 or fewer, or --probe linear"
    ):
        patience.advance(50)


def test_quick_probes_are_left_alone(clock: list[float]) -> None:
    patience = Patience("joint", LinearProbe(), 10_000, lambda text: pytest.fail(text))
    assert patience.at_once(100_000) == 100_000
    clock[0] = 1e9
    patience.advance(1)


def test_blocks_change_no_p_value(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 4)).astype(np.float32), np.tile(["a", "b"], 12)
    x[:, 0] += y == "b"
    options = {"permutations": 19, "bootstrap": 0, "probe": "svm", "unit": "subject"}
    rows = []
    for block in (3, 50):
        monkeypatch.setattr("ssl4neuro.evaluate.svm.SvmProbe.columns_at_once", block)
        rows.append(probe_arrays({"x": x}, y, np.arange(24), **options).row("x").p)
    assert rows[0] == rows[1]
