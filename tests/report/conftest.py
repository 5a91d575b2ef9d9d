"""Fixtures of the report's tests."""

from pathlib import Path

import pytest

from ssl4neuro.report.drawing import NAMESPACES, Drawing


@pytest.fixture(autouse=True)
def no_pixels(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing every PNG takes as long as the rest of a test; those that look at them take the fixture `pixels`."""
    if "pixels" in request.fixturenames:
        return

    def save(drawing: Drawing, folder: Path, name: str) -> None:
        (folder / f"{name}.svg").write_text(drawing.replace("<svg", f"<svg {NAMESPACES}", 1), encoding="utf-8")

    monkeypatch.setattr(Drawing, "save", save)


@pytest.fixture
def pixels() -> None:
    """Figures are written as users get them."""
