"""What a run of a row really was, where the row's label does not say it."""

from stages.experiments.plan import Run
from stages.experiments.results import Results, read_csp, read_facts
from stages.values import resolve

#: Lengths of RPL's prompts by the paper's letters.
LETTERS = {"words": "E", "deep_tokens": "L", "depth": "M"}


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
    chosen = run.params["efa"]["test"]["weights"]
    if not isinstance(chosen, int):
        return []
    sets = dict.fromkeys(run.row.tests.values())
    clusters = [read_csp(results, name)["clusters"][chosen - 1] for name in sets]
    return [f"{', '.join(names)} alone" for names in clusters]


def _list_cuts(run: Run, results: Results) -> list[str]:
    """Lengths that differ from those asked for: a short sentence has room for less."""
    if not any(key.startswith("rpl.") for key in run.row.set):
        return []
    cuts = []
    for dataset, auxiliary in run.row.tests.items():
        asked = resolve(run.params["rpl"], auxiliary, run.params["data"]["source"], "rpl")
        trained = dict(read_facts(results, dataset).get("lengths", {}))
        if asked["layout"] == "template_ctx":
            trained.pop("words", None)  # the template decides
        elif "words" in trained:
            trained["words"] = min(trained["words"])
        cuts += [
            f"{LETTERS[key]}={length} in place of {asked[key]}"
            for key, length in trained.items()
            if length != asked[key]
        ]
    return cuts
