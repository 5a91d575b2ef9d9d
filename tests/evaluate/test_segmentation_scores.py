"""Scores of one picture against naive loops and closed forms."""

import numpy as np
import pytest
import torch

from ssl4neuro.evaluate.segmentation_scores import peak, score_scan

STRUCTURES = {"myocardium": (1, 2, 3), "infarct": (2, 3), "MVO": (3,)}


def naive_distances(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float]) -> tuple[float, float]:
    """Borders by 4-neighbours, all pairs of distances, both directions."""

    def border(mask: np.ndarray) -> list[tuple[int, int]]:
        inside = np.pad(mask, 1)
        return [
            (r, c)
            for r, c in np.argwhere(mask)
            if not (inside[r, c + 1] and inside[r + 2, c + 1] and inside[r + 1, c] and inside[r + 1, c + 2])
        ]

    def directed(first: list, second: list) -> list[float]:
        return [
            min(np.hypot((r - s) * spacing[0], (c - t) * spacing[1]) for s, t in second) for r, c in first
        ]  # fmt: skip

    there, back = directed(border(a), border(b)), directed(border(b), border(a))
    return max(np.percentile(there, 95), np.percentile(back, 95)), max(*there, *back)


@pytest.mark.parametrize("spacing", [None, (1.5, 0.8)])
def test_equal_the_naive_loop(spacing: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 4, (2, 6, 6)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    truth, predicted = coarse
    truth = np.where(rng.random(truth.shape) < 0.1, 255, truth).astype(np.uint8)
    pixel = 1.0 if spacing is None else 1.5 * 0.8
    for line in score_scan(predicted, truth, None, STRUCTURES, spacing, None):
        codes = STRUCTURES[line["structure"]]
        tp = fp = fn = 0
        a, b = np.zeros(truth.shape, dtype=bool), np.zeros(truth.shape, dtype=bool)
        for r, c in np.ndindex(truth.shape):
            if truth[r, c] == 255:
                continue
            a[r, c], b[r, c] = predicted[r, c] in codes, truth[r, c] in codes
            tp, fp, fn = tp + (a[r, c] and b[r, c]), fp + (a[r, c] and not b[r, c]), fn + (b[r, c] and not a[r, c])
        assert (line["tp"], line["fp"], line["fn"]) == (tp, fp, fn)
        assert line["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert line["jaccard"] == pytest.approx(line["dice"] / (2 - line["dice"]))
        assert (line["precision"], line["recall"]) == (pytest.approx(tp / (tp + fp)), pytest.approx(tp / (tp + fn)))
        assert (line["area"], line["area_true"]) == (pytest.approx((tp + fp) * pixel), pytest.approx((tp + fn) * pixel))
        hd95, hsd = naive_distances(a, b, spacing or (1.0, 1.0))
        assert (line["hd95"], line["hsd"]) == (pytest.approx(hd95, rel=1e-5), pytest.approx(hsd, rel=1e-5))
        assert line["score"] == 1 == line["detected"]


def test_nothing_by_nothing_is_not_a_number() -> None:
    empty, disc = np.zeros((9, 9), dtype=np.uint8), np.zeros((9, 9), dtype=np.uint8)
    disc[3:6, 3:6] = 3

    def of(predicted: np.ndarray, truth: np.ndarray) -> dict:
        return score_scan(predicted, truth, None, {"MVO": (3,)}, None, None)[0]

    ratios = ("dice", "jaccard", "precision", "recall", "hd95", "hsd")
    assert all(np.isnan(of(empty, empty)[name]) for name in ratios)
    missed, alarm = of(empty, disc), of(disc, empty)
    assert missed["dice"] == missed["recall"] == 0
    assert np.isnan(missed["precision"])
    assert np.isnan(missed["hd95"])
    assert (missed["positive"], missed["detected"], missed["score"]) == (True, False, 0)
    assert alarm["dice"] == alarm["precision"] == 0
    assert np.isnan(alarm["recall"])
    unjudged = np.where(disc == 3, 255, disc).astype(np.uint8)
    assert not of(disc, unjudged)["detected"]  # what nobody judged is no false alarm


def test_detection_score_is_a_smoothed_peak() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), (10, 12)).transpose(2, 0, 1).astype(np.float32)
    truth = np.where(rng.random((10, 12)) < 0.2, 255, 0).astype(np.uint8)
    lines = score_scan(np.zeros((10, 12), dtype=np.uint8), truth, probabilities, STRUCTURES, None, None)
    for line in lines:
        union = probabilities[list(STRUCTURES[line["structure"]])].sum(0)
        best = 0.0
        for r, c in np.argwhere(truth != 255):
            window = np.s_[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
            best = max(best, float(union[window][truth[window] != 255].mean()))
        assert line["score"] == pytest.approx(best, rel=1e-5)
    single, block = np.zeros((8, 8)), np.zeros((8, 8))
    single[4, 4], block[3:6, 3:6] = 1, 0.5
    judged = np.ones((8, 8), dtype=bool)
    assert peak(single, judged) < peak(block, judged) == pytest.approx(0.5)
    pooled = torch.nn.functional.avg_pool2d(torch.from_numpy(single)[None, None], 3, 1, 1, count_include_pad=False)
    assert peak(single, judged) == pytest.approx(float(pooled.max()))


def test_uncertainty_is_that_of_the_surroundings() -> None:
    doubt = np.full((20, 20), 0.1)
    doubt[5:10, 5:10] = 0.9
    predicted, truth = np.zeros((20, 20), dtype=np.uint8), np.zeros((20, 20), dtype=np.uint8)
    predicted[15:17, 15:17] = 3
    assert score_scan(predicted, truth, None, {"MVO": (3,)}, None, doubt)[0]["uncertainty"] == pytest.approx(0.1)
    predicted[:] = 0
    predicted[7, 7] = 3
    assert score_scan(predicted, truth, None, {"MVO": (3,)}, None, doubt)[0]["uncertainty"] > 0.7
    assert score_scan(truth, truth, None, {"MVO": (3,)}, None, doubt)[0]["uncertainty"] == pytest.approx(doubt.mean())
