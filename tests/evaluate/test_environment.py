"""What a result says it was made with: a command that can be repeated, and no word about where."""

import json
import shlex

import pytest

from ssl4neuro.evaluate.environment import command_line, environment


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["/home/ann/bin/ssl4neuro", "probe", "emb", "--target", "sex"], "ssl4neuro probe emb --target sex"),
        (["/x/ssl4neuro/__main__.py", "probe", "/data/hospital/emb/", "--out=/home/ann/r"], "ssl4neuro probe emb --out=r"),
        (["recipes/finetune.py", "network_state", "--data", "../ann/hh"], "python finetune.py network_state --data hh"),
        ([r"C:\py\Scripts\ssl4neuro.exe", "report", r"C:\Users\ann\run"], "ssl4neuro report run"),
        (["ssl4neuro", "report", "r", "--results", "/a/b,c,/d/e f"], "ssl4neuro report r --results 'b,c,e f'"),
        (["/usr/bin/pytest", "-q"], None),
        (["-c"], None),
        ([], None),
    ],
)
def test_command_line(words, line):
    if words and words[0].startswith("C:"):
        words[0] = words[0].replace("\\", "/")  # as Windows' own pathlib would split it
    assert command_line(words) == line


def test_it_can_be_split_again():
    words = ["ssl4neuro", "probe", "e", "--target", "it's; rm -rf $HOME", "--nuisance", "age,sex"]
    assert shlex.split(str(command_line(words))) == words


def test_record_is_plain_and_names_no_place(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/ann/ssl4neuro", "probe", "/secret/place/emb"])
    record = environment()
    assert record["command"] == "ssl4neuro probe emb"
    assert record["versions"]["ssl4neuro"]
    assert record["versions"]["numpy"]
    assert not {"ann", "secret"} & set(json.dumps(record).replace("/", '"').split('"'))
