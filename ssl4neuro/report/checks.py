"""The leak audit in a report: warnings on top, one table of everything that was looked for."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssl4neuro.report.page import Notice, Table, plural

STATES = {"flagged": "✗ flagged", "not checkable": "? not checkable", "passed": "✓ passed"}  # in the order of their urgency


def check_table(checks: Sequence[Mapping[str, Any]]) -> Table:
    """What was looked for and found, flagged ones first."""
    known = sorted((c for c in checks if c.get("status") in STATES), key=lambda c: list(STATES).index(c["status"]))
    rows = tuple((str(c.get("name")), STATES[c["status"]], str(c.get("detail") or "")) for c in known)
    note = "Not checkable: what was handed in does not hold the information, so the leak can neither be seen nor excluded."
    exact = tuple({key: c.get(key) for key in ("name", "status", "detail")} for c in known)
    flagged = tuple(i for i, c in enumerate(known) if c["status"] == "flagged")
    return Table("Leak audit", ("looked for", "result", "detail"), rows, "checks", note, flagged, exact)


def check_notices(checks: Sequence[Mapping[str, Any]]) -> list[Notice]:
    """A warning per flagged check, and one sentence about the others."""
    found = {state: [c for c in checks if c.get("status") == state] for state in STATES}
    notices = [Notice("warning", f"{_capital(c.get('name'))}: {c.get('detail')}") for c in found["flagged"]]
    passed, open_ = len(found["passed"]), len(found["not checkable"])
    if passed or open_:
        text = f"Leak audit: {plural(passed, 'check')} passed, {len(found['flagged'])} flagged, {open_} not checkable."
        notices.append(Notice("note" if open_ or found["flagged"] else "good", text))
    return notices


def _capital(text: Any) -> str:
    return str(text)[:1].upper() + str(text)[1:]
