"""Masked clip modelling: what is hidden, that it stays hidden, and what is scored."""

import numpy as np
import pytest
import torch
from objective_fakes import FakeModel, make_clips
from scipy import ndimage
from torch import nn

from ssl4neuro.encoders.course import CourseConv
from ssl4neuro.encoders.tubelet import TubeletViT
from ssl4neuro.objectives import MaskedClip, NoNegatives
from ssl4neuro.objectives.masked_clip import touches
from ssl4neuro.objectives.tubes import draw_dropped, draw_masked, keep_tokens

GRID = (3, 4, 5)
EVERY_MODE = pytest.mark.parametrize("mode", ["tube", "random", "block"])


def full(n: int, steps: int = GRID[0]) -> torch.Tensor:
    """Validity of the tokens of n clips with some valid time steps."""
    return (torch.arange(GRID[0]) < steps).repeat_interleave(20).expand(n, -1)


def bound(model: nn.Module, **options) -> MaskedClip:
    objective = MaskedClip(**options)
    objective.bind(model.encoders)
    return objective.double()


class Recorder:
    """What a module was called with and what it returned."""

    def __init__(self, module: nn.Module) -> None:
        self.calls: list[tuple] = []
        module.register_forward_hook(lambda _, args, kwargs, out: self.calls.append((args, kwargs, out)), with_kwargs=True)


@EVERY_MODE
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.9])
def test_hides_exactly_the_ratio(mode: str, ratio: float) -> None:
    torch.manual_seed(0)
    hidden = draw_masked(mode, ratio, GRID, full(7))
    total = 60 if mode == "random" else 20
    assert (hidden.sum(1) == round(ratio * total) * (60 // total)).all()
    assert len({tuple(line) for line in hidden.tolist()}) > 3


@EVERY_MODE
def test_hides_valid_tokens_only(mode: str) -> None:
    valid = torch.cat([full(4, steps) for steps in (0, 1, 2, 3)])
    hidden = draw_masked(mode, 0.5, GRID, valid)
    assert not (hidden & ~valid).any()
    assert hidden.sum(1).tolist() == [10 * steps for steps in (0, 1, 2, 3) for _ in range(4)]


@pytest.mark.parametrize("mode", ["tube", "block"])
def test_the_same_places_at_all_times(mode: str) -> None:
    hidden = draw_masked(mode, 0.6, GRID, full(6)).view(6, 3, 20)
    assert (hidden == hidden[:, :1]).all()
    assert not (hidden.any(1) == hidden.any(1)[0]).all()


def test_random_tubelets_differ_between_times() -> None:
    hidden = draw_masked("random", 0.6, GRID, full(6)).view(6, 3, 20)
    assert not (hidden == hidden[:, :1]).all(1).all(1).any()


def test_a_block_hangs_together() -> None:
    for hidden in draw_masked("block", 0.4, GRID, full(20))[:, :20]:
        assert ndimage.label(hidden.view(4, 5).numpy(), np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("mode", ["tube", "random"])
def test_anatomy_first(mode: str) -> None:
    """Few hidden: all in the anatomy. Many hidden: all of the anatomy. None known: anywhere."""
    anatomy = torch.zeros(50, 20, dtype=torch.bool)
    anatomy[:, [2, 3, 7, 8, 12, 13]] = True
    tokens = anatomy.repeat(1, 3)
    few, many = (draw_masked(mode, ratio, GRID, full(50), anatomy) for ratio in (0.25, 0.5))
    assert not (few & ~tokens).any()
    assert few.sum(1).tolist() == [15] * 50
    assert (many | ~tokens).all()
    assert many.sum(1).tolist() == [30] * 50
    assert draw_masked(mode, 0.5, GRID, full(50), torch.zeros_like(anatomy)).any(0).all()


def test_a_block_lies_around_the_anatomy() -> None:
    anatomy = torch.zeros(30, 20, dtype=torch.bool)
    anatomy[:, 6] = True
    assert draw_masked("block", 0.2, GRID, full(30), anatomy)[:, 6].all()


def test_touches_is_that_of_a_loop() -> None:
    torch.manual_seed(0)
    labels = torch.randint(-1, 3, (3, 4, 7, 9)) * (torch.rand(3, 4, 7, 9) > 0.93)
    found = touches(labels, (2, 3, 3))  # 3 rows × 3 columns per place, the last row of places has one row
    expected = [
        [any((labels[n, :, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3] > 0).flatten()) for i in range(3) for j in range(3)]
        for n in range(3)
    ]
    assert found.tolist() == expected
    assert 0 < found.sum() < 27


def test_kept_tokens_are_visible_or_padding_and_equally_many() -> None:
    valid = torch.cat([full(5, steps) for steps in (1, 2, 3)])
    hidden = draw_masked("random", 0.7, GRID, valid)
    keep = keep_tokens(hidden, valid)
    assert not hidden.gather(1, keep).any()
    assert all(len(set(line)) == len(line) and line == sorted(line) for line in keep.tolist())
    assert (valid.gather(1, keep).sum(1) == (valid & ~hidden).sum(1)).all()  # nothing visible is lost


def test_anatomy_reaches_the_draw() -> None:
    model, batch = FakeModel(), make_clips(absent=False)
    batch["masks"]["cine"] = torch.zeros_like(batch["masks"]["cine"])
    batch["masks"]["cine"][..., 2:4, 2:4] = 1  # one place of 3 × 3
    batch["valid"]["cine"][:] = True
    objective, seen = bound(model, anatomy=True, ratio=0.1), Recorder(model.encoders["cine"])
    objective(model, batch)
    assert not (seen.calls[0][1]["keep"] % 9 == 4).any()


@pytest.mark.parametrize("options", [{"mode": "tube"}, {"mode": "random"}, {"mode": "block", "slice_dropout": 0.5}])
def test_hidden_pixels_reach_the_target_but_no_encoder(options: dict) -> None:
    model, batch = FakeModel(), make_clips(absent=False)
    batch["valid"]["cine"][:] = True
    objective, seen = bound(model, normalise=False, **options), Recorder(model.encoders["cine"])
    torch.manual_seed(5)
    before = objective(model, batch)["loss"]
    first = list(seen.calls)
    x = batch["inputs"]["cine"].flatten(0, 1)
    changed = x.clone()
    patches = model.encoders["cine"].patches
    number = patches(torch.arange(1.0, 1 + x[0].numel()).view(1, *x.shape[1:]))[0].long() - 1  # pixel of each value
    taken = 0
    for args, kwargs, _ in first:
        for values, keep in zip(args[0], kwargs["keep"], strict=True):
            clip = next(i for i in range(len(x)) if torch.equal(x[i], values))
            hidden = torch.ones(len(number), dtype=torch.bool)
            hidden[keep] = False
            pixels = number[hidden].flatten()
            pixels = pixels[pixels >= 0]  # not those beyond the image
            changed[clip].view(-1)[pixels] += 1 + torch.rand(len(pixels), dtype=torch.float64)
            taken += 1
    assert taken == len(x)
    batch["inputs"]["cine"] = changed.view_as(batch["inputs"]["cine"])
    seen.calls.clear()
    torch.manual_seed(5)
    assert not torch.isclose(objective(model, batch)["loss"], before, rtol=1e-3)
    for (_, _, old), (_, _, new) in zip(first, seen.calls, strict=True):
        torch.testing.assert_close(new.tokens, old.tokens, rtol=0, atol=0)


@pytest.mark.parametrize("more", [1, 4])
@pytest.mark.parametrize("normalise", [True, False])
def test_padding_frames_do_not_count(more: int, normalise: bool) -> None:
    """Whatever they hold, and also when they complete a tubelet."""
    model, batch = FakeModel(), make_clips()
    batch["valid"]["cine"] = batch["valid"]["cine"][..., :5]
    batch["inputs"]["cine"], batch["times"]["cine"] = batch["inputs"]["cine"][:, :, :, :5], batch["times"]["cine"][..., :5]
    objective = bound(model, normalise=normalise)
    torch.manual_seed(2)
    expected = objective(model, batch)
    x = batch["inputs"]["cine"]
    batch["inputs"]["cine"] = torch.cat([x, 9 * torch.randn(*x.shape[:3], more, *x.shape[4:], dtype=x.dtype)], 3)
    batch["valid"]["cine"] = nn.functional.pad(batch["valid"]["cine"], (0, more))
    batch["times"]["cine"] = nn.functional.pad(batch["times"]["cine"], (0, more), value=torch.nan)
    torch.manual_seed(2)
    found = objective(model, batch)
    for term in ("loss", "baseline", "masked"):
        torch.testing.assert_close(found[term], expected[term], rtol=1e-6, atol=0)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("mode", ["tube", "random"])
def test_loss_and_baseline_are_those_of_loops(mode: str, normalise: bool) -> None:
    model, batch = FakeModel(), make_clips(subjects=1, absent=False)
    objective = bound(model, mode=mode, normalise=normalise)
    decoded = Recorder(objective.decoder)
    found = objective(model, batch)
    (_, _, hidden, valid, grid), predictions = decoded.calls[0][0][:5], iter(decoded.calls[0][2])
    x, frames = batch["inputs"]["cine"].flatten(0, 1).numpy(), batch["valid"]["cine"].flatten(0, 1).numpy()
    errors, baselines = [], []
    for n in range(len(x)):
        tubelets = {}
        for number, (t, h, w) in enumerate(np.ndindex(*grid)):
            box = {}
            for place in np.ndindex(2, 2, 2):
                at = (2 * t + place[0], 2 * h + place[1], 2 * w + place[2])
                if at[2] < 5 and frames[n, at[0]]:  # 5 columns
                    box[place] = x[n, 0][at]
            values = np.array(list(box.values()))
            if normalise and box:
                box = {k: (v - values.mean()) / np.sqrt(values.var() + 1e-6) for k, v in box.items()}
            tubelets[number] = box
        visible = [box for number, box in tubelets.items() if not hidden[n, number] and valid[n, number]]
        means = {p: np.mean([b[p] for b in visible if p in b] or [0.0]) for p in np.ndindex(2, 2, 2)}
        for number, box in tubelets.items():
            if hidden[n, number]:
                guess = next(predictions).detach().numpy().reshape(2, 2, 2)
                errors.append(np.mean([(guess[p] - v) ** 2 for p, v in box.items()]))
                baselines.append(np.mean([(means[p] - v) ** 2 for p, v in box.items()]))
    assert next(predictions, None) is None
    assert found["loss"].item() == pytest.approx(np.mean(errors), rel=1e-9)
    assert found["baseline"].item() == pytest.approx(np.mean(baselines), rel=1e-9)
    assert found["masked"].item() == pytest.approx(hidden.sum().item() / valid.sum().item())


def test_part_of_every_study_is_dropped_and_never_all() -> None:
    torch.manual_seed(0)
    study = torch.tensor([0, 0, 0, 1, 2, 2, 0, 3, 3])
    draws = torch.stack([draw_dropped(study, 0.4) for _ in range(2000)]).double()
    assert (draws[:, 3] == 0).all()  # a clip without a sibling
    for code, size in ((0, 4), (2, 2), (3, 2)):
        counts = draws[:, study == code].sum(1)
        assert counts.max() < size
        assert counts.mean().item() == pytest.approx(min(0.4 * size, size - 1), abs=0.05)
        assert draws[:, study == code].mean(0).std() < 0.04  # each as likely as the others
    assert draws[:, study == 0].sum(1).min() == 1  # 1.6 rounded down


def pair_of_clips(groups: list[int]) -> dict:
    batch = make_clips(subjects=1, views=1, absent=False)
    batch["group"] = torch.tensor([*groups, *range(10, 16)])
    batch["valid"]["cine"][:] = True
    return batch


def test_a_dropped_clip_is_painted_from_its_study() -> None:
    model = FakeModel()
    objective = bound(model, slice_dropout=0.5, normalise=False)
    decoded = Recorder(objective.decoder)

    def painted(batch: dict) -> torch.Tensor:
        decoded.calls.clear()
        torch.manual_seed(1)
        objective(model, batch)
        dropped = decoded.calls[1]
        assert len(dropped[0][2]) == 1  # one clip, one place of 9 seen
        assert dropped[0][2].sum() == 24
        return dropped[2]

    batch = pair_of_clips([5, 5])
    before = painted(batch)
    assert torch.equal(painted(batch), before)
    values = batch["inputs"]["cine"].clone()
    batch["inputs"]["cine"][2:] += torch.randn(6, 1, 1, 6, 6, 5, dtype=torch.float64)  # strangers
    torch.testing.assert_close(painted(batch), before, rtol=0, atol=1e-12)
    moved = {**batch, "inputs": {"cine": values}, "context": {"slice": torch.arange(8) * 3}}
    assert not torch.allclose(painted(moved), before, atol=1e-6)  # farther away
    for sibling in range(2):
        batch["inputs"]["cine"] = values.clone()
        batch["inputs"]["cine"][sibling] += torch.randn(1, 1, 6, 6, 5, dtype=torch.float64)
        assert not torch.allclose(painted(batch), before, atol=1e-6)


def test_without_siblings_nothing_is_dropped() -> None:
    model = FakeModel()
    objective = bound(model, slice_dropout=0.9)
    found = objective(model, pair_of_clips([5, 6]))
    assert found["masked"].item() == pytest.approx(7 / 9)


def test_nothing_to_hide_is_said() -> None:
    model, batch = FakeModel(), make_clips(subjects=1)
    batch["valid"]["cine"][:] = False
    with pytest.raises(NoNegatives, match="no clip has two valid tubelets"):
        bound(model)(model, batch)


def test_a_single_flat_frame_can_be_modelled() -> None:
    model, batch = FakeModel(), make_clips(subjects=1)
    batch["inputs"]["cine"] = torch.ones_like(batch["inputs"]["cine"][:, :, :, :1])
    for name in ("valid", "times"):
        batch[name]["cine"] = batch[name]["cine"][..., :1]
    found = bound(model)(model, batch)
    found["loss"].backward()
    assert torch.isfinite(found["loss"])
    assert found["baseline"] < 1e-12
    assert all(torch.isfinite(p.grad).all() for p in model.encoders.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "motion"}, "no modality 'motion'"),
        ({"decoder_dim": 64}, "lower its dim or depth"),
        ({"decoder_dim": 10}, "multiple of heads"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedClip(**options).bind(FakeModel().encoders)


def test_an_encoder_that_leaves_nothing_out_is_refused() -> None:
    with pytest.raises(ValueError, match="use tubelet_vit"):
        MaskedClip().bind({"cine": CourseConv()})


@pytest.mark.parametrize("options", [{"ratio": 1.0}, {"slice_dropout": 1.0}, {"decoder_depth": 0}])
def test_options_out_of_range(options: dict) -> None:
    with pytest.raises(ValueError):
        MaskedClip(**options)


def test_learns_to_beat_the_baseline() -> None:
    """Gratings that drift: the visible places tell what the hidden ones show."""
    torch.manual_seed(0)
    model = nn.Module()
    model.encoders = nn.ModuleDict({"cine": TubeletViT(dim=48, depth=2, heads=2, patch=(2, 4, 4))})
    objective = MaskedClip(ratio=0.5, normalise=False)
    objective.bind(model.encoders)
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], 3e-3)
    time, row = torch.arange(4.0)[:, None, None], torch.arange(16.0)[:, None]
    for step in range(150):
        phase = 6.28 * torch.rand(16, 1, 1, 1)
        x = (phase + 0.4 * time + 0.4 * row).sin().expand(-1, -1, -1, 16)[:, None, None]
        there = torch.ones(16, dtype=torch.bool)
        batch = {
            "row": torch.arange(16),
            "group": torch.arange(16),
            "present": {"cine": there},
            "inputs": {"cine": x},
            "valid": {"cine": there[:, None, None].expand(-1, 1, 4)},
        }
        found = objective(model, batch)
        if step == 0:
            assert found["loss"] > 0.5 * found["baseline"]
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
    assert found["loss"] < 0.3 * found["baseline"]
