"""Text and figures can be read in both modes: contrast by WCAG 2.2, 1.4.3 (text 4.5) and 1.4.11 (graphics 3)."""

import re
from pathlib import Path

import pytest

from ssl4neuro import report
from ssl4neuro.report.drawing import BASELINE, CHANCE, SERIES

CSS = (Path(report.__file__).parent / "template.html").read_text(encoding="utf-8")


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb."""
    digits = colour.lstrip("#")
    digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def variables(dark: bool) -> dict[str, str]:
    light, over = (dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", CSS))
    return light | over if dark else light


@pytest.mark.parametrize("dark", [False, True])
def test_text_on_every_ground(dark):
    colours = variables(dark)
    for ground in ("page", "panel"):
        for ink in ("ink", "soft", "own"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for ground in ("green-panel", "red-panel"):
        assert contrast(colours["ink"], colours[ground]) >= 4.5
    for border in ("own", "green", "grey", "red"):
        assert contrast(colours[border], colours["page"]) >= 3


def test_lines_and_markers_on_white():
    for colour in (*SERIES, BASELINE, CHANCE):
        assert contrast(colour, "#ffffff") >= 3, colour


def test_known_ratios():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)
