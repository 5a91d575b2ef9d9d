"""The quick start: it continues what is there, refuses what is not its own, and runs whole in its tiny form."""

from pathlib import Path

import pytest

from ssl4neuro.cli import main
from ssl4neuro.errors import UserError
from ssl4neuro.quickstart import quickstart


def test_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="holds something else"):
        quickstart(["--out", str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        quickstart(["--tinny"])


def test_tiny_from_raw_files_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "quick"
    words = ["pretrain", "--tiny", "--subjects", "8", "--out", str(out)]
    assert main(words) == 0
    text = capsys.readouterr().out
    for part in ("joint", "PCA + logistic", "oracle that knows the effect", "chance", "report.html", "ssl4neuro query"):
        assert part in text
    assert (out / "run" / "report.html").is_file()
    assert (out / "results" / "report.html").is_file()
    weights = next((out / "run" / "checkpoints").glob("step-*/model.safetensors")).stat().st_mtime_ns
    assert main(words) == 0, "a second call finds everything there"
    assert next((out / "run" / "checkpoints").glob("step-*/model.safetensors")).stat().st_mtime_ns == weights
    assert main([*words, "--seed", "9"]) == 2
    assert "other flags" in capsys.readouterr().err
