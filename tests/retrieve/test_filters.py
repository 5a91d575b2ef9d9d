import numpy as np
import pandas as pd
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.retrieve.filters import select

TABLE = pd.DataFrame(
    {
        "site": ["A", "B", "A", None],
        "network": ["DMN", "SC", "VIS", "DMN"],
        "age": [20.0, 31.5, np.nan, 60.0],
        "component": [1, 2, 3, 4],
        "seen": [True, False, True, False],
        "scan date": ["x", "y", "x", "y"],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ((), [0, 1, 2, 3]),
        ("site==A", [0, 2]),
        ("site == 'A'", [0, 2]),
        ("site!=A", [1, 3]),
        ("network in DMN,SC", [0, 1, 3]),
        ("network in DMN, SC", [0, 1, 3]),
        ("network not in DMN,SC", [2]),
        ("age>=31.5", [1, 3]),
        ("age<31.5", [0]),
        ("age!=20", [1, 2, 3]),
        ("component==3", [2]),
        ("component in 1,4", [0, 3]),
        ("seen==false", [1, 3]),
        ("seen!=False", [0, 2]),
        ("scan date==y", [1, 3]),
        (("site==A", "age>0"), [0]),
        (["network==DMN", "seen==no"], [3]),
    ],
)
def test_conditions(where, rows):
    assert np.flatnonzero(select(TABLE, where)).tolist() == rows


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("site", "not a condition"),
        ("site=A", "not a condition"),
        ("sight==A", "did you mean 'site'"),
        ("network==DNM", "did you mean 'DMN'"),
        ("site!=Z", r"no row has site 'Z' \(choose from A, B\)"),
        ("network in DMN,VISUAL", "no row has network 'VISUAL'"),
        ("age>old", "not a number"),
        ("seen==perhaps", "neither true nor false"),
        ("site>A", "have no order|has no order|which have no order"),
        (("site==B", "network==DMN"), "no row is left"),
    ],
)
def test_refused_in_one_line(where, message):
    with pytest.raises(UserError, match=message) as error:
        select(TABLE, where)
    assert "\n" not in str(error.value)


def test_many_choices_are_not_listed():
    subjects = pd.DataFrame({"subject": [f"sub-{i:03d}" for i in range(500)]})
    with pytest.raises(UserError) as error:
        select(subjects, "subject==zzz")
    assert len(str(error.value)) < 120
