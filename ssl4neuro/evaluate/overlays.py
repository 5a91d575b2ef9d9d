"""Segmentations to look at: contours on the picture, the uncertainty beside it, the beat as an animation, failures first.

Numbers say how often a model fails, pictures say how. The predicted contour is a solid line, a colour per class; the reference
is dashed, white on black. So the two stay apart in grey print and for colour-blind readers, as lines and not as hues.
"""

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from contourpy import contour_generator
from jaxtyping import Float, Shaped, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke

from ssl4neuro.data.animation import write_png
from ssl4neuro.data.clip_rows import moving_centre

COLOURS = ("#ffb000", "#40b0ff", "#ff5fa2", "#7be36b", "#c9a0ff", "#f0e442")  # of class 1, 2, ...; all bright on grey tissue
HEART = 100.0  # mm, about an adult's heart in short axis: the least that is shown where the spacing is known
SHARE = 0.5  # of the picture's longer side, likewise where it is not
MARGIN = 1.3  # side of the crop in sides of the masks' box
WINDOW = (1.0, 99.5)  # percentiles of the crop's values that are shown black and white
BAR = 10.0  # mm
PANEL, GAP, DPI = 2.3, 0.1, 120  # in, in, pixels/in
TOP, LINE, ENTRY, SCALE = 0.9, 0.18, 1.5, 0.5  # in: titles, height and width of a legend entry, colour bar with its labels
DASHES = (0, (3.2, 2.4))  # in line widths
BEST = 2
SHARES = {"missed": 4 / 12, "false alarm": 3 / 12, "low Dice": 3 / 12, "among the best": BEST / 12}  # of a gallery
CINE = 288  # pixels, shorter side of the animation
FONT: dict[Any, Any] = {"font.family": "DejaVu Sans", "text.parse_math": False}  # a class called "$x" is no formula

Grey = Float[np.ndarray, "time height width"]
Line = Float[np.ndarray, "_ 2"]  # column and row, pixels
Box = tuple[int, int, int, int]  # first row, end row, first column, end column


class Case(NamedTuple):
    """One segmented frame with the clip that it belongs to."""

    title: str
    frames: Shaped[np.ndarray, "time height width *colour"]  # source intensities
    frame: int  # the segmented one, from 0
    predicted: UInt8[np.ndarray, "height width"]  # class codes
    truth: UInt8[np.ndarray, "height width"] | None  # class codes, others are not drawn; None where there is no reference
    uncertainty: Float[np.ndarray, "height width"] | None  # 0 to 1
    classes: tuple[str, ...]  # names by code; the first is the background
    interval: float = float("nan")  # from frame to frame, s; NaN where unknown
    note: str = ""  # e.g. "Dice 0.41, HD95 6.2 mm"
    spacing: tuple[float, float] | None = None  # mm between rows, between columns; None where unknown


def draw_case(case: Case, path: str | Path) -> Path:
    """A row of panels about the heart, as PNG.

    The segmented frame as acquired; the same with contours; the uncertainty, where there is one; then the first frame of the
    clip and the one most different from it (in a beat that starts at end-diastole: end-systole) with the contours of the
    segmented frame, against which wall motion can be judged. Neither is repeated where it is the segmented one.

    Raises:
        UserError: `path` cannot be written.
    """
    case = _judged(case)
    frames = grey(case.frames)
    box = crop(case)
    window = _window(frames, box)
    phases = [(role, frame) for role, frame in _phases(frames, box) if frame != case.frame]
    with mpl.rc_context(FONT):
        figure, panels = _row(case, 2 + len(phases), case.uncertainty is not None, _tall(case, box))
        for axes, what in zip(panels, ("as acquired", "with contours"), strict=False):
            _show(axes, case, frames[case.frame], box, window)
            axes.set_title(f"{what}\n{_when(case, case.frame)}", fontsize=8)
        _scale_bar(panels[0], case, box)
        _lines(panels[1], case, 1.5)
        others = panels[2:]
        if case.uncertainty is not None:
            _show_uncertainty(figure, others.pop(0), case, case.uncertainty, box)
        for axes, (role, frame) in zip(others, phases, strict=True):
            _show(axes, case, frames[frame], box, window)
            _lines(axes, case, 1.0)
            axes.set_title(f"{role}, {_when(case, frame)}\ncontours of frame {case.frame}", fontsize=8)
        _legend(figure, case)
        return write_png(_pixels(figure), path)


def animate_case(case: Case) -> UInt8[np.ndarray, "time height width 3"]:
    """The whole clip with the contours of the segmented frame, thin on the frames where they only mark the place.

    The reference is drawn on the frame that it belongs to and on no other. At least 256 pixels a side; time in the corner.
    """
    case = _judged(case)
    frames = grey(case.frames)
    box = crop(case)
    tall = _tall(case, box)
    wide = CINE / DPI / min(tall, 1.0)
    with mpl.rc_context(FONT):
        figure = Figure(figsize=(wide, wide * tall), dpi=DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        picture = _show(axes, case, frames[0], box, _window(frames, box))
        _scale_bar(axes, case, box)
        corner = axes.text(0.03, 0.97, "", transform=axes.transAxes, va="top", color="white", fontsize=8)
        corner.set_path_effects(_halo(2.0))
        own, elsewhere = _lines(axes, case, 1.5), _predicted(axes, case, 0.8)
        drawn = []
        for number, frame in enumerate(frames):
            picture.set_data(frame)
            for artist in own:
                artist.set_visible(number == case.frame)
            for artist in elsewhere:
                artist.set_visible(number != case.frame)
            corner.set_text(_when(case, number) + (", segmented" if number == case.frame else ""))
            drawn.append(_pixels(figure))
    return np.stack(drawn)


def failures_first(scans: pd.DataFrame, structure: str, most: int | None = None, unit: str = "mm²") -> pd.DataFrame:
    """The cases of a gallery, in the order in which to look at them.

    Missed ones (in the reference, and the model found nothing of it), largest first; false alarms, largest first; the lowest
    Dice; and some of the best, against which to see the rest. Pictures that are rightly left empty are no cases.

    Args:
        scans: the table `scans.tsv` of a results folder; of several models the first one that is no baseline.
        structure: in its column `structure`.
        most: number of cases, of which every kind has its share; what one kind leaves, the next ones get. None: all of them.
        unit: of the areas.

    Returns:
        Rows of `scans` with a column `why`.
    """
    own = scans[(scans["structure"] == structure) & ~scans["baseline"].astype(bool)]
    own = own[own["model"] == own["model"].iloc[0]] if len(own) else own
    positive, detected = own["positive"].astype(bool), own["detected"].astype(bool)
    scored = own[positive & detected].sort_values("dice", kind="stable")
    best = min(BEST, len(scored) // 2)
    kinds = {
        "missed": own[positive & ~detected].sort_values("area_true", ascending=False, kind="stable"),
        "false alarm": own[~positive & (own["area"] > 0)].sort_values("area", ascending=False, kind="stable"),
        "low Dice": scored.iloc[: len(scored) - best],
        "among the best": scored.iloc[len(scored) - best :].iloc[::-1],
    }
    room = _shares({kind: len(rows) for kind, rows in kinds.items()}, len(own) if most is None else most)
    return pd.concat([rows[: room[kind]].assign(why=_why(kind, rows[: room[kind]], unit)) for kind, rows in kinds.items()])


def _shares(counts: dict[str, int], most: int) -> dict[str, int]:
    """How many of each kind, `most` in all: first everyone's share, then what is left over in the order of the kinds."""
    room, left = dict.fromkeys(counts, 0), most
    for limits in ({kind: int(most * SHARES[kind]) for kind in counts}, counts):
        for kind, count in counts.items():
            more = max(0, min(count, limits[kind]) - room[kind])
            room[kind] += min(more, left)
            left -= min(more, left)
    return room


def _why(kind: str, rows: pd.DataFrame, unit: str) -> list[str]:
    """`missed, 142 mm² in the reference`, `false alarm, 35 mm²`, `low Dice, 0.21`, `among the best, Dice 0.92`."""
    if kind == "missed":
        return [f"{kind}, {area:.3g} {unit} in the reference" for area in rows["area_true"]]
    if kind == "false alarm":
        return [f"{kind}, {area:.3g} {unit}" for area in rows["area"]]
    return [f"{kind}, {'' if 'Dice' in kind else 'Dice '}{dice:.2f}" for dice in rows["dice"]]


def grey(frames: Shaped[np.ndarray, "time height width *colour"]) -> Grey:
    """Float intensities; of colours their mean."""
    values = frames.astype(np.float64)
    return values if values.ndim == 3 else values.mean(axis=3)


def crop(case: Case) -> Box:
    """The part of the picture that is shown: square on the patient, with all masks, and never less than the heart.

    Its middle is that of the masks where they are as large as a heart, and that of the moving region where a small lesion
    alone was segmented, so that one sees in which wall it lies.
    """
    case = _judged(case)
    height, width = case.predicted.shape
    size = np.array(case.spacing or (1.0, 1.0))
    whole = size * (height, width)
    least = HEART if case.spacing else SHARE * whole.max()
    middle = (np.array(moving_centre(case.frames)) + 0.5) * size
    masks = (case.predicted > 0) if case.truth is None else (case.predicted > 0) | (case.truth > 0)
    side = least
    if masks.any():
        where = np.argwhere(masks)
        low, high = where.min(axis=0) * size, (where.max(axis=0) + 1) * size
        side = max(least, MARGIN * float((high - low).max()))
        if (high - low).max() > least / 3:
            middle = (low + high) / 2
        spare = side * (1 - 1 / MARGIN) / 2
        middle = np.clip(middle, high + spare - side / 2, low - spare + side / 2)
    middle = np.clip(middle, np.minimum(side, whole) / 2, whole - np.minimum(side, whole) / 2)
    first = np.floor(np.maximum(middle - side / 2, 0) / size).astype(int)
    end = np.ceil(np.minimum(middle + side / 2, whole) / size - 1e-9).astype(int)
    return int(first[0]), int(end[0]), int(first[1]), int(end[1])


# --- panels -----------------------------------------------------------------------------------------------------------


def _row(case: Case, pictures: int, uncertain: bool, tall: float) -> tuple[Figure, list[Axes]]:
    """Panels of one size side by side; the colour bar stands in a space of its own behind the third."""
    n = pictures + uncertain
    wide = n * PANEL + (n + 1) * GAP + (SCALE if uncertain else 0)
    bottom = LINE * -(-(len(case.classes) + 1) // _columns(wide)) + 0.12
    high = TOP + PANEL * tall + bottom
    figure = Figure(figsize=(wide, high), dpi=DPI, facecolor="white")
    lefts = [GAP + i * (PANEL + GAP) + (SCALE if uncertain and i > 2 else 0) for i in range(n)]
    panels = [figure.add_axes((left / wide, bottom / high, PANEL / wide, PANEL * tall / high)) for left in lefts]
    figure.text(GAP / wide, 1 - 0.08 / high, case.title, fontsize=10, fontweight="bold", va="top")
    figure.text(GAP / wide, 1 - 0.29 / high, case.note, fontsize=8.5, color="#444444", va="top")
    return figure, panels


def _show(axes: Axes, case: Case, frame: Float[np.ndarray, "height width"], box: Box, window: tuple[float, float]) -> AxesImage:
    rows, columns = case.spacing or (1.0, 1.0)
    picture = axes.imshow(frame, cmap="gray", vmin=window[0], vmax=window[1], interpolation="bicubic", aspect=rows / columns)
    _cut(axes, box)
    return picture


def _cut(axes: Axes, box: Box) -> None:
    axes.set_axis_off()
    axes.set_xlim(box[2] - 0.5, box[3] - 0.5)
    axes.set_ylim(box[1] - 0.5, box[0] - 0.5)


def _show_uncertainty(figure: Figure, axes: Axes, case: Case, uncertainty: Float[np.ndarray, "height width"], box: Box) -> None:
    rows, columns = case.spacing or (1.0, 1.0)
    picture = axes.imshow(uncertainty, cmap="inferno", vmin=0, vmax=1, interpolation="nearest", aspect=rows / columns)
    _cut(axes, box)
    axes.set_title(f"uncertainty\n{_when(case, case.frame)}", fontsize=8)
    place = axes.get_position()
    inch = 1 / figure.get_figwidth()
    bar = figure.colorbar(picture, cax=figure.add_axes((place.x1 + 0.06 * inch, place.y0, 0.1 * inch, place.height)))
    bar.set_label("uncertainty (0 to 1)", fontsize=7.5, labelpad=2)
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    bar.ax.tick_params(labelsize=7, length=2)


def _lines(axes: Axes, case: Case, width: float) -> list[Artist]:
    """The prediction, and the reference's dashes on top of it: where the two agree, colour shows between the dashes."""
    drawn = _predicted(axes, case, width * 1.3)
    if case.truth is not None:
        paths: list[Line] = []
        for code in range(1, len(case.classes)):
            # a border of two classes once: dashes of both, out of step, would make a solid line
            paths += _new(_outline(case.truth == code), paths)
        drawn.append(_add(axes, paths, "white", width, DASHES))
    return drawn


def _predicted(axes: Axes, case: Case, width: float) -> list[Artist]:
    codes = range(1, len(case.classes))
    return [_add(axes, _outline(case.predicted == code), _colour(code), width) for code in codes]


def _add(axes: Axes, paths: list[Line], colour: str, width: float, style: Any = "solid") -> Artist:
    lines = LineCollection(paths, colors=[colour], linewidths=[width], linestyles=[style])
    lines.set_path_effects(_halo(width + 0.9))  # without a dark edge, bright lines vanish on bright blood
    return axes.add_collection(lines, autolim=False)


def _outline(mask: Shaped[np.ndarray, "height width"]) -> list[Line]:
    """Column and row (pixels) along the boundary of a mask, closed at the picture's edge too."""
    rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
    found: Any = contour_generator(columns, rows, np.pad(mask, 1).astype(float)).lines(0.5)  # closed lines, end = start
    return list(found)


def _new(paths: list[Line], old: list[Line]) -> list[Line]:
    """The stretches of `paths` that do not run along one of `old`."""
    known = {tuple(point) for path in old for point in path.tolist()}
    found = []
    for path in paths:
        there = np.array([tuple(point) in known for point in path.tolist()])
        again = there[:-1] & there[1:]
        stretches = np.split(np.arange(len(again)), np.flatnonzero(np.diff(again)) + 1)
        found += [path[i[0] : i[-1] + 2] for i in stretches if len(i) and not again[i[0]]]
    return found


def _scale_bar(axes: Axes, case: Case, box: Box) -> None:
    if case.spacing is None:
        return
    length = BAR / case.spacing[1]
    left, bottom = box[2] + 0.05 * (box[3] - box[2]), box[1] - 0.07 * (box[1] - box[0])
    (bar,) = axes.plot([left, left + length], [bottom, bottom], color="white", linewidth=2.5, solid_capstyle="butt")
    bar.set_path_effects(_halo(4.5))
    text = axes.text(left, bottom - 0.02 * (box[1] - box[0]), f"{BAR:g} mm", color="white", fontsize=7.5)
    text.set(ha="left", va="bottom", path_effects=_halo(2.0))


def _legend(figure: Figure, case: Case) -> None:
    in_truth = set() if case.truth is None else set(np.unique(case.truth).tolist())
    found, missing = set(np.unique(case.predicted).tolist()), []
    handles = []
    for code, name in enumerate(case.classes):
        if code and code in found:
            effects = _halo(3.4)
            handles.append(Line2D([], [], color=_colour(code), linewidth=2.2, label=name, path_effects=effects))
        elif code and code in in_truth:
            missing.append(name)
    if case.truth is not None and case.truth.any():
        dashes = Line2D([], [], color="white", linestyle=DASHES, linewidth=1.6, label="reference", path_effects=_halo(3.0))
        handles.append(dashes)
    words = [f"not predicted: {name}" for name in missing]
    words += ["prediction: empty"] if not missing and not found - {0} else []
    words += ["reference: empty"] if case.truth is not None and not case.truth.any() else []
    handles += [Line2D([], [], linestyle="none", label=text) for text in words]
    place: dict[str, Any] = {
        "loc": "lower left",
        "bbox_to_anchor": (GAP / figure.get_figwidth(), 0.0),
        "borderaxespad": 0.1,
        "borderpad": 0.2,
    }
    figure.legend(handles=handles, ncols=_columns(figure.get_figwidth()), fontsize=8, frameon=False, **place)


def _columns(wide: float) -> int:
    return max(1, int(wide // ENTRY))


def _colour(code: int) -> str:
    return COLOURS[(code - 1) % len(COLOURS)]


def _halo(width: float) -> list[AbstractPathEffect]:
    return [Stroke(linewidth=width, foreground="black"), Normal()]


# --- frames -----------------------------------------------------------------------------------------------------------


def _judged(case: Case) -> Case:
    """Without values of the reference that no class has, such as 255 for pixels that nobody has judged."""
    return case if case.truth is None else case._replace(truth=np.where(case.truth < len(case.classes), case.truth, 0))


def _phases(frames: Grey, box: Box) -> list[tuple[str, int]]:
    """The first frame of the clip, and the one whose picture differs most from it within the crop."""
    if len(frames) < 2:
        return [("first", 0)]
    inside = frames[:, box[0] : box[1], box[2] : box[3]]
    difference = np.abs(inside - inside[0]).mean(axis=(1, 2))
    return [("first", 0), ("most different", int(difference.argmax()))]


def _when(case: Case, frame: int) -> str:
    time = f" ({1000 * frame * case.interval:.0f} ms)" if np.isfinite(case.interval) else ""
    return f"frame {frame}{time}"


def _window(frames: Grey, box: Box) -> tuple[float, float]:
    low, high = np.percentile(frames[:, box[0] : box[1], box[2] : box[3]], WINDOW)
    return float(low), float(high if high > low else low + 1)


def _tall(case: Case, box: Box) -> float:
    """Height of the crop on the patient, in widths."""
    rows, columns = case.spacing or (1.0, 1.0)
    return (box[1] - box[0]) * rows / ((box[3] - box[2]) * columns)


def _pixels(figure: Figure) -> UInt8[np.ndarray, "height width 3"]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
