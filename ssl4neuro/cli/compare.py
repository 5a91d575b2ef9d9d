"""`ssl4neuro compare`: two results folders, or two fine-tuned models, on the same subjects."""

from pathlib import Path

from tyro.conf import Positional

from ssl4neuro.cli.apps import app


@app.command
def compare(
    first: Positional[Path],
    second: Positional[Path],
    /,
    *,
    metric: str | None = None,
    models: tuple[str, ...] = (),
    structure: str | None = None,
    out: Path | None = None,
    permutations: int = 9999,
    seed: int = 0,
) -> int:
    """Paired test between two sets of embeddings (results of `probe`) or two fine-tuned models, on the same test subjects.

    Args:
        first: results folder of `probe`, or run of `finetune`.
        second: another one of the same kind, tested on the same subjects; the same results folder twice with two --models.
        metric: probe results: one metric, by default all. Runs: dice (default), dice_3d, jaccard, precision, recall, hd95, hsd,
            averaged over a patient's scans that show the structure, then compared between patients.
        models: probe results: one model of both folders, or one of each; by default the first embedding.
        structure: runs: what to compare; by default every structure.
        out: probe results: JSON file to write.
        permutations: probe results: exchanges of the two models; with 12 subjects or fewer all are tried.
        seed: of bootstrap and permutations.
    """
    from ssl4neuro.errors import UserError

    for folder in (first, second):
        if not any((folder / name).is_file() for name in ("results.json", "targets.json", "results/results.json")):
            raise UserError(f"{folder}: no results here; name results folders of 'probe' or finished runs of 'finetune'")
    runs = [folder for folder in (first, second) if (folder / "results" / "results.json").is_file()]
    if len(runs) == 1:
        raise UserError(f"{runs[0]}: a run of finetune cannot be compared with results of probe; name two of the same kind")
    if runs:
        if models or out is not None:
            raise UserError("models, out: for results of probe only; leave them out to compare two runs")
        from ssl4neuro.train.finetune_results import compare_runs

        print(compare_runs(first, second, structure=structure, metric=metric or "dice", seed=seed))
        return 0
    if structure is not None:
        raise UserError("structure: for runs of finetune only; leave it out to compare two results of probe")
    from ssl4neuro.evaluate.compare_results import compare_results, render, write

    found = compare_results(first, second, models=models, metric=metric, permutations=permutations, seed=seed)
    if out is not None:
        write(found, out)
    print(render(found))
    return 0
