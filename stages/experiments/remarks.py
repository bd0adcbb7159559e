"""What a run of a row really was, where the row's label does not say it."""

from stages.experiments.plan import Run
from stages.experiments.results import LETTERS, Results, read_csp, read_lengths


def describe_run(run: Run) -> str:
    """The cluster that stood alone, by its names, and lengths of prompts that were cut.

    Lengths of the rows that set something of RPL alone. Empty where there is nothing to say, or
    nothing was run.
    """
    if run.results is None:
        return ""
    parts = [*_name_cluster(run, run.results), *_list_cuts(run, run.results)]
    return ", ".join(dict.fromkeys(parts))


def _name_cluster(run: Run, results: Results) -> list[str]:
    alone = []
    for auxiliary in dict.fromkeys(run.row.tests.values()):
        chosen = run.resolve("efa.test", auxiliary)["weights"]
        if isinstance(chosen, int):
            names = read_csp(results, auxiliary)["clusters"][chosen - 1]
            alone.append(f"{', '.join(names)} alone")
    return alone


def _list_cuts(run: Run, results: Results) -> list[str]:
    """Lengths that differ from those asked for: a short sentence has room for less."""
    if not any(key.startswith("rpl.") for key in run.row.set):
        return []
    cuts = []
    for dataset, auxiliary in run.row.tests.items():
        asked, ran = run.resolve("rpl", auxiliary), read_lengths(results, dataset)
        if asked["layout"] == "template_ctx":
            ran.pop(LETTERS["words"], None)  # the template decides
        cuts += [
            f"{letter}={ran[letter]} in place of {asked[key]}"
            for key, letter in LETTERS.items()
            if ran.get(letter, asked[key]) != asked[key]
        ]
    return cuts
