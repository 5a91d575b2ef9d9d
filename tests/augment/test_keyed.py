"""The keyed generator: statistics against the distributions it claims, and purity in everything else."""

import numpy as np
import pytest
import torch
from scipy import stats

from ssl4neuro.augment.keyed import Keyed

MASK = (1 << 64) - 1


def splitmix64(z: int) -> int:
    """Reference finaliser on Python's unbounded integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def keyed(rows=64, seed=1, epoch=2, view=0, start=0) -> Keyed:
    return Keyed(seed, epoch, torch.arange(start, start + rows), view)


def test_positions_are_the_splitmix64_stream_of_the_row():
    # Logical shifts and wrapping products: consecutive positions must be splitmix64 of an arithmetic sequence in gamma.
    gamma = 0x9E3779B97F4A7C15
    bits = keyed(rows=3).bits("x", (4,))
    one = keyed(rows=3).bits("x", ())
    assert torch.equal(bits[:, 0], one)

    def invert(value: int) -> int:  # undo the finaliser to recover the counter
        unshift = lambda z, k: z ^ (z >> k) ^ (z >> 2 * k) if 3 * k >= 64 else None  # noqa: E731
        z = unshift(value & MASK, 31)
        z = (z * pow(0x94D049BB133111EB, -1, 1 << 64)) & MASK
        z = unshift(z, 27)
        z = (z * pow(0xBF58476D1CE4E5B9, -1, 1 << 64)) & MASK
        return unshift(z, 30)

    assert invert(splitmix64(123456789)) == 123456789
    for row in bits.tolist():
        counters = [invert(v) for v in row]
        assert [(c - counters[0]) & MASK for c in counters] == [(i * gamma) & MASK for i in range(4)]
        assert [splitmix64(c) for c in counters] == [v & MASK for v in row]


@pytest.mark.parametrize("which", ["positions", "rows", "epochs", "views", "names", "seeds"])
def test_uniform_along_every_part_of_the_key(which):
    n = 20_000
    row = torch.zeros(1, dtype=torch.int64)
    if which == "positions":
        values = Keyed(0, 0, row).uniform("a", (n,))[0]
    elif which == "rows":
        values = Keyed(0, 0, torch.arange(n)).uniform("a")
    elif which == "views":
        values = Keyed(0, 0, row.expand(n), torch.arange(n)).uniform("a")
    elif which == "epochs":
        values = torch.cat([Keyed(0, e, row).uniform("a", (4,))[0] for e in range(2000)])
    elif which == "names":
        values = torch.cat([Keyed(0, 0, row).uniform(f"name{e}", (4,))[0] for e in range(2000)])
    else:
        values = torch.cat([Keyed(s, 0, row).uniform("a", (4,))[0] for s in range(2000)])
    values = values.double().numpy()
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    lagged = np.corrcoef(values[:-1], values[1:])[0, 1]
    assert abs(lagged) < 4 / np.sqrt(len(values))
    assert values.min() >= 0
    assert values.max() < 1


def test_streams_of_neighbouring_keys_are_independent():
    base = Keyed(0, 0, torch.arange(2000)).uniform("a", (8,)).flatten()
    others = {
        "row": Keyed(0, 0, torch.arange(1, 2001)).uniform("a", (8,)),
        "seed": Keyed(1, 0, torch.arange(2000)).uniform("a", (8,)),
        "epoch": Keyed(0, 1, torch.arange(2000)).uniform("a", (8,)),
        "view": Keyed(0, 0, torch.arange(2000), 1).uniform("a", (8,)),
        "name": Keyed(0, 0, torch.arange(2000)).uniform("b", (8,)),
        "child": Keyed(0, 0, torch.arange(2000)).child("map").uniform("a", (8,)),
    }
    for which, other in others.items():
        joint = torch.stack([base, other.flatten()])
        assert abs(torch.corrcoef(joint)[0, 1]) < 4 / np.sqrt(base.numel()), which
        table = torch.histogramdd(joint.T, bins=[8, 8], range=[0, 1, 0, 1]).hist.numpy()
        assert stats.chisquare(table.flatten()).pvalue > 1e-3, which


def test_no_seed_and_epoch_share_a_stream():
    first = {int(Keyed(s, e, torch.zeros(1, dtype=torch.int64)).bits("a")[0]) for s in range(60) for e in range(60)}
    assert len(first) == 3600
    tensor = Keyed(0, 0, torch.arange(100)[:, None].expand(100, 5).reshape(-1), torch.arange(5).repeat(100)).bits("a")
    assert len(tensor.unique()) == 500


def test_normal_is_normal():
    values = keyed(rows=100).normal("n", (1000,)).flatten().double().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(values.mean()) < 4 / np.sqrt(len(values))
    assert abs(values.var() - 1) < 0.02
    assert abs(stats.kurtosis(values)) < 0.1
    assert stats.pearsonr(values[:-1], values[1:])[0] == pytest.approx(0, abs=0.013)
    quartets = values.reshape(-1, 4)  # four numbers share a hash
    assert np.abs(np.corrcoef(quartets.T) - np.eye(4)).max() < 0.026


def test_integers_and_bernoulli():
    draws = keyed(rows=700).integers("i", (10,), 3, 10)
    assert stats.chisquare(torch.bincount(draws.flatten() - 3, minlength=7).numpy()).pvalue > 1e-3
    assert draws.min() == 3
    assert draws.max() == 9
    high = torch.arange(1, 701)
    assert (keyed(rows=700).integers("i", (), 0, high) < high).all()
    assert keyed(rows=5000).bernoulli("b", p=0.2).float().mean() == pytest.approx(0.2, abs=0.025)


@pytest.mark.parametrize("method", ["bits", "uniform", "normal", "integers", "bernoulli"])
def test_draws_do_not_depend_on_the_batch_the_shape_or_the_threads(method):
    whole = getattr(keyed(rows=37), method)("x", (1013,))
    rows = torch.tensor([30, 5, 11])
    some = getattr(Keyed(1, 2, rows), method)("x", (1013,))
    assert torch.equal(whole[rows], some)
    assert torch.equal(getattr(keyed(rows=37), method)("x", (250,)), whole[:, :250])  # a prefix: padding adds, never changes
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(getattr(keyed(rows=37), method)("x", (1013,)), whole)
    finally:
        torch.set_num_threads(threads)


def test_shared_rows_and_views():
    base = keyed(rows=6, view=1)
    groups = torch.tensor([4, 4, 4, 9, 9, 9])
    shared = base.with_rows(groups).uniform("crop")
    assert shared[:3].unique().numel() == 1
    assert shared[3:].unique().numel() == 1
    assert shared[0] != shared[3]
    assert torch.equal(base.with_view(0).uniform("crop"), keyed(rows=6, view=0).uniform("crop"))
    per_row = base.with_view(torch.tensor([0, 1, 0, 1, 0, 1])).uniform("crop")
    assert torch.equal(per_row[1::2], base.uniform("crop")[1::2])
    assert torch.equal(per_row[::2], keyed(rows=6, view=0).uniform("crop")[::2])


def test_known_bits():
    # Fixed forever: a change here silently changes every augmentation of every resumed run.
    key = 1
    key = splitmix64((7 + 0x9E3779B97F4A7C15) & MASK)
    key = splitmix64((key + (3 + 1) * 0x9E3779B97F4A7C15) & MASK)
    import hashlib

    name = splitmix64(key ^ int.from_bytes(hashlib.blake2b(b"crop", digest_size=8).digest(), "little"))
    base = splitmix64((11 * 0x9E3779B97F4A7C15 + name) & MASK)
    base = splitmix64(base ^ ((2 * 0x9E3779B97F4A7C15) & MASK))
    expected = splitmix64((base + 0x9E3779B97F4A7C15) & MASK)
    got = int(Keyed(7, 3, torch.tensor([11]), 2).bits("crop")[0])
    assert got & MASK == expected
