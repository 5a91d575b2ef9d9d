"""Which network a component belongs to: template correlation, and the review table that a person corrects.

Every component goes to the template with the largest |r| over the voxels of the mask, if that reaches the threshold; one
template may take several components (methods/network_state.md section 2). The sign of an ICA map is arbitrary, hence |r|.
A template without a network name still competes: a component that looks like an unnamed template (noise, say) is left
unassigned rather than given to the best of the named ones.

The review table has one line per component: `network` is what the cohort will carry, empty where unassigned. Its user edits
`network` and `assigned` and passes the table back.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from ssl4neuro.errors import UserError

THRESHOLD = 0.25  # methods/network_state.md section 2
REVIEW_KEY = ("participant_id", "session_id", "run_id", "component")


def correlate(
    maps: Float[np.ndarray, "components voxels"], templates: Float[np.ndarray, "templates voxels"]
) -> Float[np.ndarray, "components templates"]:
    """Pearson correlation over voxels of every map with every template; 0 where either is constant."""
    return _standardise(maps) @ _standardise(templates).T


def assign(
    maps: Float[np.ndarray, "components voxels"],
    templates: Float[np.ndarray, "templates voxels"],
    names: Sequence[str],
    threshold: float = THRESHOLD,
) -> list[dict[str, object]]:
    """Best template of every component.

    Args:
        maps, templates: in-mask voxels on the same grid.
        names: network of each template; several templates may share one; empty for a template that names no network.
        threshold: smallest |r| that assigns, between 0 and 1.

    Returns:
        One line per component: `network` (empty if unassigned), `template` (1-based), `template_network`, `correlation`
        (signed), `second_network` and `second_correlation` (best template of any other network: how close a call it
        was), `assigned` ("yes" or "no").

    Raises:
        UserError: threshold outside [0, 1], or names and templates of different length.
    """
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold {threshold}: a correlation lies between 0 and 1; choose one there, usually {THRESHOLD}")
    if len(names) != len(templates):
        raise UserError(f"templates: {len(templates)} volumes but {len(names)} names; name each volume once")
    r = correlate(maps, templates)
    labels = np.asarray(names, dtype=object)
    lines: list[dict[str, object]] = []
    for row in r:
        best = int(np.abs(row).argmax())
        others = np.flatnonzero(labels != labels[best])
        second = int(others[np.abs(row[others]).argmax()]) if len(others) else None
        assigned = bool(abs(row[best]) >= threshold and labels[best])
        lines.append(
            {
                "network": labels[best] if assigned else "",
                "template": best + 1,
                "template_network": labels[best],
                "correlation": round(float(row[best]), 4),
                "second_network": labels[second] if second is not None else "",
                "second_correlation": round(float(row[second]), 4) if second is not None else float("nan"),
                "assigned": "yes" if assigned else "no",
            }
        )
    return lines


def read_networks(path: Path, count: int | None = None) -> dict[int, str]:
    """Network by 1-based component number, from a table with the columns `component` and `network`.

    Args:
        count: number of components there are; a number above it is refused.

    Raises:
        UserError: unreadable, a column missing, a component that is no positive integer, is named twice or does not exist.
    """
    table = read_table(path, ("component", "network"))
    networks: dict[int, str] = {}
    for line, (component, network) in enumerate(zip(table["component"], table["network"], strict=True), start=2):
        number = _component(path, line, component)
        if number in networks:
            raise UserError(f"{path}: line {line} names component {number} a second time; keep one line per component")
        if count is not None and number > count:
            raise UserError(f"{path}: line {line} names component {number} of only {count}; use the table of these maps")
        networks[number] = str(network).strip()
    return networks


def read_review(path: Path) -> dict[tuple[str, str, str, int], str]:
    """Network by (participant_id, session_id, run_id, component) from an edited review table; empty where unassigned.

    Raises:
        UserError: unreadable, a column missing, a component twice in one scan, or a line with a network that says `no`.
    """
    table = read_table(path, ("participant_id", "component", "network"))
    for column in ("session_id", "run_id", "assigned"):
        if column not in table:
            table[column] = ""
    review: dict[tuple[str, str, str, int], str] = {}
    for line, entry in enumerate(table.to_dict("records"), start=2):
        key = (entry["participant_id"], entry["session_id"], entry["run_id"], _component(path, line, entry["component"]))
        if key in review:
            name = " ".join(part for part in key[:3] if part)
            raise UserError(f"{path}: line {line} repeats component {key[3]} of {name}; keep one line")
        network = entry["network"].strip()
        if entry["assigned"].strip().lower() == "no" and network:
            raise UserError(
                f"{path}: line {line} has the network '{network}' but says assigned 'no'; "
                "write 'yes' to keep it or empty the network"
            )
        review[key] = network
    return review


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A tab-separated table (comma-separated if named .csv) as text, with at least these columns.

    Raises:
        UserError: absent, not a table, or a column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        table = pd.read_csv(
            path,
            sep="," if path.suffix == ".csv" else "\t",
            dtype=str,
            keep_default_na=False,
            index_col=False,  # a stray tab at the end of the lines must not turn the first column into an index
            encoding="utf-8-sig",
        ).fillna("")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable table ({reason}); save it as tab-separated text") from error
    table.columns = [str(name).strip() for name in table.columns]
    for column in columns:
        if column not in table:
            raise UserError(f"{path}: no column '{column}' (it has {', '.join(table.columns)}); add it, separated by tabs")
    return table


def _component(path: Path, line: int, text: object) -> int:
    try:
        number = int(str(text))
    except ValueError:
        number = 0
    if number < 1:
        raise UserError(f"{path}: line {line}: component '{text}' is not a number from 1; components are counted from 1")
    return number


def _standardise(rows: Float[np.ndarray, "rows voxels"]) -> Float[np.ndarray, "rows voxels"]:
    """Zero mean and unit length; a constant row becomes 0. Float64, since maps of 200,000 voxels lose digits in float32."""
    rows = rows.astype(np.float64)
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    rows -= rows.mean(axis=1, keepdims=True)
    scale = np.linalg.norm(rows, axis=1, keepdims=True)
    constant = scale <= 1e-10 * size  # what rounding leaves of a constant row is not a pattern
    return np.where(constant, 0.0, rows / np.where(constant, 1.0, scale))
