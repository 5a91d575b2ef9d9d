"""Attention probe: one telling clip among many, chance without information, invariances, nothing from the test rows."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ssl4neuro.evaluate.attention import AttentionProbe, Weights, bag_means, make_bags, pool
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.probes import PROBES
from ssl4neuro.evaluate.protocol import Probe
from ssl4neuro.registry import Component, build

DIM = 8


def needle(units, seed, clips=12):
    """Bags in which one clip, known by its first feature, carries the class in its second; the others carry noise there."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, units)
    x = rng.normal(size=(units, clips, DIM))
    at = rng.integers(0, clips - 3, units)
    x[np.arange(units), at, 0] += 6
    x[np.arange(units), at, 1] = (2 * y - 1) * 1.5 + rng.normal(size=units) * 0.5
    x[: units // 3, -3:] = np.nan  # some units have fewer clips
    return x.astype(np.float32), y


def predict(probe, train, y, test, task="binary", classes=2, seed=0):
    labels = np.asarray(y, dtype=np.float64).reshape(len(train), -1)
    return probe.prepare(train, test, np.arange(len(train)), task, classes, seed)(labels)


def test_it_is_a_probe_that_takes_bags():
    assert isinstance(AttentionProbe(), Probe)
    assert isinstance(build(PROBES, Component("attention")), AttentionProbe)
    assert AttentionProbe.bags


def test_one_telling_clip_is_found_where_the_mean_is_weak():
    (train, y), (test, truth) = needle(100, 0), needle(200, 1)
    scores = predict(AttentionProbe(), train, y, test)
    attention = roc_auc_score(truth, scores.values[:, 0, 0])
    mean = roc_auc_score(truth, predict(LinearProbe(), bag_means(train), y, bag_means(test)).values[:, 0, 0])
    assert attention > 0.9
    assert mean < attention - 0.08
    decision = scores.values[:, 0, 0] + scores.offset[0, 0] > 0
    assert (decision == truth).mean() > 0.8


def test_without_information_it_stays_at_chance():
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=(60, 5, DIM)).astype(np.float32) for _ in range(2))
    truth = rng.integers(0, 2, 60)
    scores = predict(AttentionProbe(), train, rng.integers(0, 2, (60, 20)), test).values[:, :, 0]
    areas = [roc_auc_score(truth, column) for column in scores.T]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.06)


def test_order_and_padding_of_clips_do_not_matter():
    (train, y), (test, _) = needle(40, 2), needle(20, 3)
    reference = predict(AttentionProbe(), train, y, test)
    rng = np.random.default_rng(0)
    order = [rng.permutation(12) for _ in range(60)]
    mixed = [np.stack([bag[o] for bag, o in zip(part, order, strict=False)]) for part in (train, test)]
    padded = [np.concatenate([part, np.full((len(part), 4, DIM), np.nan, np.float32)], axis=1) for part in (train, test)]
    for a, b in (mixed, padded):
        scores = predict(AttentionProbe(), a, y, b)
        np.testing.assert_allclose(scores.values, reference.values, atol=0.01)
        np.testing.assert_allclose(scores.offset, reference.offset, atol=0.01)


def test_repeatable_and_nothing_comes_from_other_test_rows():
    (train, y), (test, _) = needle(40, 2), needle(20, 3)
    reference = predict(AttentionProbe(), train, y, test)
    assert np.array_equal(predict(AttentionProbe(), train, y, test).values, reference.values)
    other = test.copy()
    other[5:] = other[5:] * 100 + 7
    scores = predict(AttentionProbe(), train, y, other)
    np.testing.assert_allclose(scores.values[:5], reference.values[:5], atol=1e-5)
    assert np.array_equal(scores.offset, reference.offset)
    assert not np.allclose(scores.values[5:], reference.values[5:])


def test_columns_do_not_meet():
    (train, y), (test, _) = needle(24, 2), needle(20, 3)
    columns = np.random.default_rng(0).permuted(np.tile(y, (5, 1)), axis=1).T
    together = predict(AttentionProbe(), train, columns, test)
    for i in (0, 3):
        alone = predict(AttentionProbe(), train, columns[:, i], test)
        np.testing.assert_allclose(together.values[:, i], alone.values[:, 0], atol=0.01)


def test_one_clip_each_is_the_linear_probe():
    (train, y), (test, _) = needle(40, 2), needle(20, 3)
    single = np.full((40, 12, DIM), np.nan, np.float32)
    single[:, 1] = train[:, 0]
    expected = predict(LinearProbe(), train[:, 0], y, bag_means(test))
    np.testing.assert_allclose(predict(AttentionProbe(), single, y, test).values, expected.values, atol=1e-5)
    flat = predict(AttentionProbe(), train[:, 0], y, test[:, 0])
    np.testing.assert_allclose(flat.values, predict(LinearProbe(), train[:, 0], y, test[:, 0]).values)


def test_values_and_several_classes():
    rng = np.random.default_rng(0)
    (train, _), (test, _) = needle(150, 5), needle(80, 6)
    told = [part[np.arange(len(part)), np.nan_to_num(part[:, :, 0], nan=-9).argmax(1), 1] for part in (train, test)]
    goal = [40 + 10 * t + rng.normal(size=len(t)) for t in told]
    scores = predict(AttentionProbe(), train, goal[0], test, "regression", 0)
    guess = scores.values[:, 0, 0] + scores.offset[0, 0]
    assert np.corrcoef(guess, goal[1])[0, 1] > 0.75
    assert guess.mean() == pytest.approx(40, abs=4)
    levels = [np.digitize(t, [-1, 1]) for t in told]
    scores = predict(AttentionProbe(), train, levels[0], test, "multiclass", 3)
    assert scores.values.shape == (80, 1, 3)
    right = ((scores.values[:, 0] + scores.offset[0]).argmax(1) == levels[1]).mean()
    assert right > 0.6


def test_pooling_equals_a_loop_over_units_and_clips():
    (train, _), (test, _) = needle(30, 2), needle(10, 3)
    test[4] = np.nan  # a unit without clips
    bags = make_bags(train, test, 5)[1]
    torch.manual_seed(0)
    model = Weights(torch.randn(3, 4, 5), torch.randn(3, 4, 5), torch.randn(3, 4), torch.randn(3, 1, 5), torch.zeros(3, 1))
    pooled = pool(model, bags)
    for unit in range(10):
        clips = bags.x[unit][bags.there[unit]]
        for column in range(3):
            score = torch.stack(
                [
                    (torch.tanh(model.values[column] @ c) * torch.sigmoid(model.gates[column] @ c)) @ model.attention[column]
                    for c in clips
                ]
            )
            expected = (torch.softmax(score, 0)[:, None] * clips).sum(0)
            torch.testing.assert_close(pooled[unit, column], expected, atol=1e-5, rtol=1e-4)
    assert (pooled[4] == 0).all()
