"""The plain words claim what the numbers allow, and no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl4neuro.report.verdict import against_baseline, against_chance, p_words, signed

ROW = {"value": 0.6, "ci_low": 0.45, "ci_high": 0.75, "p": 0.2, "p_corrected": None, "p_equivalence": None, "chance": 0.5}


@pytest.mark.parametrize(
    ("changed", "word", "sentence"),
    [
        ({"p": 0.003}, "evidence", "Evidence that it can (p = 0.003)."),
        ({"p": 0.003, "p_corrected": 0.2}, "no evidence", "No evidence that it can (p = 0.200, corrected for"),
        ({}, "no evidence", "That is no evidence that it cannot: values from 0.450 to 0.750 agree with the data."),
        ({"ci_low": 0.55}, "no evidence", "excludes chance; where subjects are few, rather trust the permutation test"),
        ({"ci_high": 0.48, "p": 0.9}, "no evidence", "lies below chance: it does worse than guessing."),
        ({"p_equivalence": 0.01}, "equivalent", "evidence that it hardly can: the value lies within ± 0.10 of chance"),
        ({"p": 0.01, "p_equivalence": 0.01}, "evidence", "but hardly: the value lies within ± 0.10 of chance (p = 0.010)."),
        ({"p": None}, "untested", "No permutation test was made; the interval includes chance (0.500)."),
        ({"p": None, "ci_low": 0.51}, "untested", "the interval excludes chance (0.500)."),
        ({"p": None, "chance": None}, "untested", "No test against chance was made."),
    ],
)  # fmt: skip
def test_against_chance(changed, word, sentence):
    found = against_chance(ROW | changed, 0.1)
    assert found[0] == word
    assert sentence in found[1]


@given(st.floats(0, 1), st.floats(0, 1) | st.none(), st.floats(0, 1) | st.none())
def test_evidence_needs_a_small_corrected_p(p, corrected, equivalence):
    word, sentence = against_chance(ROW | {"p": p, "p_corrected": corrected, "p_equivalence": equivalence})
    decides = p if corrected is None else corrected
    assert (word == "evidence") == (decides <= 0.05)
    assert sentence.startswith("Evidence" if decides <= 0.05 else "No evidence")
    assert (word == "equivalent") == (decides > 0.05 and equivalence is not None and equivalence <= 0.05)


@pytest.mark.parametrize(
    ("difference", "p", "sign", "sentence"),
    [
        (0.2, 0.01, 1, "evidence that the embedding is better"),
        (-0.2, 0.01, 1, "evidence that the embedding is worse"),
        (-0.2, 0.01, -1, "evidence that the embedding is better"),  # of an error
        (0.2, 0.2, 1, "no evidence of a difference"),
        (0.2, None, 1, "evidence that the embedding is better"),  # by the interval
    ],
)
def test_against_the_baseline(difference, p, sign, sentence):
    paired = {"difference": difference, "ci_low": difference - 0.1, "ci_high": difference + 0.1, "p": p}
    text = against_baseline(ROW, ROW | {"value": 0.6 - difference}, paired, sign)
    assert text.startswith(f"Paired difference {signed(difference)} (95 % CI ")
    assert sentence in text


def test_numbers_in_words():
    assert [p_words(p) for p in (0.0001, 0.0123, 0.04999, 0.0502)] == ["p < 0.001", "p = 0.012", "p = 0.0500", "p = 0.0502"]
    assert [signed(v) for v in (0.1234, -0.1)] == ["+0.123", "−0.100"]
