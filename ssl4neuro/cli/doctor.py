"""`ssl4neuro doctor`."""

from pathlib import Path

from tyro.conf import Positional

from ssl4neuro.cli.apps import app


@app.command
def doctor(path: Positional[Path], /, *, maps: Path | None = None, mask: Path | None = None) -> int:
    """Check a raw folder or a prepared cohort; exit status 1 when something would spoil a run.

    Args:
        path: BIDS derivatives, MELODIC or GIFT output, time series, or a prepared cohort.
        maps: spatial maps that the scans are to be regressed on; found by themselves when they lie in the folder.
        mask: brain mask.
    """
    from ssl4neuro.data.doctor import examine, render

    findings = examine(path, maps=maps, mask=mask)
    print(render(findings))
    return int(any(finding.level == "fatal" for finding in findings))
