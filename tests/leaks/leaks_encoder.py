"""The encoder, or the group maps, know the people who are tested."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from leak_world import Leak, checks_of, course_cohort, study

from ssl4neuro.data.embeddings import Embeddings, with_vectors
from ssl4neuro.evaluate.check import Check
from ssl4neuro.manifest import Manifest


def source(table: pd.DataFrame, x: np.ndarray, info: dict[str, Any]) -> Embeddings:
    """Embeddings of one row per scan, opened as they would be from a table."""
    table = table if "seen" in table else table.assign(seen=False)
    rows = with_vectors(table, {"joint": x})
    return Embeddings(Path("embeddings"), {**info, "modalities": {"joint": {"dim": x.shape[1]}}}, rows, rows)


def pretrained_on(names: list[str], contents: list[str], dataset: str) -> dict[str, Any]:
    return {"manifest": Manifest.of(dataset, names, contents, salt="00").to_json(), "checkpoint_sha256": "0" * 64}


def seen_by_name(planted: bool, folder: Path) -> tuple[Check, ...]:
    """The embeddings say nobody was seen; the manifest names ten test subjects."""
    table, x = study()
    cohort = course_cohort(folder, table)
    names = table["subject"].tolist()[:10] if planted else [f"sub-{n}" for n in range(10)]
    return checks_of(table, x, source=source(table, x, pretrained_on(names, [], "study")), cohort=cohort)


def seen_by_content(planted: bool, folder: Path) -> tuple[Check, ...]:
    """The same files in pretraining, under another dataset and other IDs."""
    table, x = study()
    cohort = course_cohort(folder, table)
    files = [next(iter(found)) for found in cohort.content_hashes().values()][:10] if planted else ["f" * 64]
    return checks_of(table, x, source=source(table, x, pretrained_on(["x01"], files, "another")), cohort=cohort)


def stopped(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Everybody was pretrained on."""
    table, x = study()
    table["seen"] = planted
    return checks_of(table, x)


def stamped(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Subjects that the encoder has seen are tested on request."""
    table, x = study()
    table["seen"] = planted & (np.arange(len(table)) < 20)
    return checks_of(table, x, allow_overlap=True)


def group_ica(planted: bool, folder: Path) -> tuple[Check, ...]:
    """CanICA was fitted on all subjects, or on those that only train."""
    table, x = study()
    table["seen"] = np.arange(len(table)) < 20
    names = table["subject"].tolist()
    cohort = course_cohort(
        folder, table, settings={"source": "bids", "canica": 20, "canica_subjects": names if planted else names[:20]}
    )
    return checks_of(table, x, cohort=cohort)


def crossfit(planted: bool, folder: Path) -> tuple[Check, ...]:
    """Vectors of the held-out subjects of five encoders in one table."""
    table, x = study()
    table["encoder"] = [f"fold-{n % 5 if planted else 0}" for n in range(len(table))]
    return checks_of(table, x)


LEAKS = [
    Leak("every subject was seen in pretraining", "stops", "were seen in pretraining", stopped),
    Leak("subjects seen in pretraining are tested on request", "flags", "encoder trained on test subjects", stamped),
    Leak("encoder trained on test subjects, by name", "flags", "encoder trained on test subjects", seen_by_name),
    Leak("encoder trained on test subjects, under other IDs", "flags", "encoder trained on test subjects", seen_by_content),
    Leak("group ICA maps (CanICA) made of test subjects", "flags", "group maps made of test subjects", group_ica),
    Leak("features of several encoders in one table", "flags", "features of several encoders", crossfit),
]
