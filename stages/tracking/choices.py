"""The choices that made a result: which of params.yaml it used, and what was changed.

Both follow what the stages declare in dvc.yaml: a method that did not run, or a dataset that is in
no pair, has no part in a result.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fuzzyclip.method import OWN
from stages import paths
from stages.git import call_git
from stages.params import flatten, list_declared, resolve
from stages.schema import Params
from stages.yaml_file import parse_yaml, read_yaml

#: Sections whose values may be tables by auxiliary set or source of data.
TABLES = ("efa.train", "efa.test", "rpl")
#: What a dataset has if nothing else is said of it; such entries say nothing of a result.
PLAIN = {"counts": "published", "mask_above": 0, "names": "raw"}
#: What moves no number of a result.
IDLE = (
    "data.download", "features.shard_size", "evaluation.overlays", "evaluation.gallery", "package",
)  # fmt: skip
#: Code that decides no number.
APART = (
    "fuzzyclip/cli", "fuzzyclip/deploy", "fuzzyclip/distributed", "fuzzyclip/health",
    "fuzzyclip/report", "fuzzyclip/towers", "stages/experiments", "stages/git.py",
    "stages/page.py", "stages/report.py", "stages/track.py", "stages/tracking",
)  # fmt: skip
#: Changes that a name tells; the description has all.
TOLD = 3


def list_used(params: Params, method: str = OWN) -> list[str]:
    """Dotted names of the parameters that a method's result depends on, all that lies below too."""
    if method != OWN:
        stages = [("train", method), ("evaluate_baseline", method)]
    else:
        trained = sorted(set(params.pairs.values()))
        members = [member for name in trained for member in params.auxiliary[name]]
        datasets = [*dict.fromkeys([*params.pairs, *members])]
        stages = [
            *((stage, key) for key in datasets for stage in ("download", "index", "features")),
            *((stage, key) for key in trained for stage in ("auxiliary", "csp", "efa", "rpl")),
            *(("package", key) for key in trained),
            *(("evaluate", key) for key in params.pairs),
            ("report", ""),
        ]
    names = [name for stage, key in stages for name in list_declared(params, stage, key)]
    if method == OWN and params.data.source == "sample":
        names.append("sample")
    return [*dict.fromkeys(names)]


def list_params(params: Params) -> list[tuple[str, str]]:
    """FuzzyCLIP's parameters as dotted keys and text: those that decided its numbers.

    What differs between auxiliary sets or datasets is one text, `visa: 0.0; mvtec: 0.2`; a table is
    told as what it came to. What is null or a dataset's usual is left out: a run holds params.yaml.
    """
    tree, used, joined = read_tree(), list_used(params), ("pairs", *TABLES)
    told = [
        (key, value)
        for key, value in flatten(tree)
        if _is_within(key, used) and not _is_within(key, (*joined, *IDLE))
    ]
    datasets = {key.split(".")[1]: None for key, _ in told if key.startswith("datasets.")}
    plain = {
        (f"datasets.{dataset}.{name}", value)
        for dataset in datasets
        for name, value in (*flatten(PLAIN), ("kind", dataset))
    }
    protocols = {dataset: params.datasets[dataset].protocol for dataset in datasets}
    told = [(key, value) for key, value in told if value != "null" and (key, value) not in plain]
    told = [(key, value) for key, value in told if not key.endswith(".protocol")]
    told += [("pairs", join_values(params.pairs)), ("protocols", join_values(protocols))]
    for section in TABLES:
        told += _resolve_section(params, tree, section)
    return told


def _resolve_section(
    params: Params, tree: Mapping[str, Any], section: str
) -> Iterator[tuple[str, str]]:
    block: Any = tree
    for name in section.split("."):
        block = block[name]
    trained = [*dict.fromkeys(params.pairs.values())]
    settings = {name: resolve(block, name, params.data.source, section) for name in trained}
    for key in block:
        yield f"{section}.{key}", join_values({name: settings[name][key] for name in trained})


def join_values(values: Mapping[str, Any]) -> str:
    """A choice by dataset or auxiliary set: once where all have the same, else with its names."""
    texts = {name: format_value(value) for name, value in values.items()}
    if len(distinct := [*dict.fromkeys(texts.values())]) == 1:
        return distinct[0]
    named = [(text, [name for name in texts if texts[name] == text]) for text in distinct]
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in named)


def format_value(value: Any) -> str:
    """A value as a person writes it in params.yaml or behind `-S`."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_tree() -> dict[str, Any]:
    """params.yaml as it is written."""
    tree: dict[str, Any] = read_yaml(paths.PARAMS)
    return tree


@dataclass(frozen=True)
class Changes:
    """What was changed for a result.

    Attributes:
        name: in short, `csp.penalty=0.2`; nothing where nothing was changed.
        text: in a sentence, with what it is compared with.
    """

    name: str
    text: str


def find_changes(params: Params, method: str = OWN) -> Changes:
    """What differs from the commit that an experiment was started from, else from HEAD.

    Parameters that the method does not use are no changes of its.
    """
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or run_git("rev-parse", "HEAD")
    written = run_git("show", f"{commit}:./{paths.PARAMS}") if commit else ""
    if not written:
        return Changes("", "Made outside of git: what was changed is not known.")
    base = parse_yaml(written, f"{paths.PARAMS} of commit {commit[:8]}")
    if method != OWN and method not in base["methods"]:
        return Changes("new method", f"A method that commit {commit[:8]} does not have.")
    edits = list_edits(method)
    changes = list_changes(base, read_tree(), list_used(params, method))
    told = ", ".join(f"`{text}`" for text in [*changes, *(f"edited {name}" for name in edits)])
    text = f"Changed: {told}" if told else "As committed"
    return Changes(summarize(changes, edits), f"{text}, compared with commit {commit[:8]}.")


def list_changes(
    base: Mapping[str, Any], tree: Mapping[str, Any], used: Sequence[str]
) -> list[str]:
    """What of the used parameters differs from the base's, `csp.penalty=0.2`, settings first."""
    changes = list(_compare(base, tree))
    told = [text for key, text in changes if _is_within(key, used) and not _is_pair(key)]
    pairs = [(key, text) for key, text in changes if _is_pair(key) and _is_within("pairs", used)]
    if any(key not in _list_keys(tree["pairs"], "pairs") for key, _ in pairs):
        return [*told, f"on {', '.join(tree['pairs'])}"]
    return [*told, *(text for _, text in pairs)]


def list_edits(method: str = OWN) -> list[str]:
    """Files of code that may decide a method's result and differ from HEAD, or git does not know.

    A method's own folder decides no other's, and FuzzyCLIP reads nothing of the baselines'.
    """
    below = run_git("rev-parse", "--show-prefix")  # names begin at git's root, with -z as they are
    code = ("fuzzyclip", "stages")
    listed = run_git("status", "--porcelain", "-z", "-uall", "--no-renames", "--", *code)
    names = [line[3:].removeprefix(below) for line in listed.split("\0") if line]
    apart = tuple(f"{name}/" for name in APART)
    return [
        name
        for name in names
        if not f"{name}/".startswith(apart) and _may_decide(name.split("/"), method)
    ]


def _may_decide(parts: Sequence[str], method: str) -> bool:
    """Whether a file, by the parts of its name, may decide a method's result."""
    if [*parts[:2]] != ["fuzzyclip", "baselines"]:
        return True
    return method != OWN and (len(parts) < 4 or parts[2] in ("shared", method))


def summarize(changes: Sequence[str], edits: Sequence[str]) -> str:
    """Changes in short: the first few of many."""
    parts = [*changes[:TOLD]]
    if len(changes) > TOLD:
        parts.append(f"{len(changes) - TOLD} more")
    if edits:
        parts.append(f"edited {edits[0] if len(edits) == 1 else f'{len(edits)} files'}")
    return ", ".join(parts)


def run_git(*arguments: str) -> str:
    """Git's answer, or nothing where this is no checkout."""
    return call_git(*arguments).stdout.rstrip()


def _compare(base: Any, now: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of each change, tables within tables."""
    if isinstance(base, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*now, *base]):
            inner = f"{key}.{name}".removeprefix(".")
            if name not in now:
                yield inner, f"without {inner}"
            elif name not in base:
                yield from _compare(
                    {} if isinstance(now[name], Mapping) else None, now[name], inner
                )
            else:
                yield from _compare(base[name], now[name], inner)
    elif base != now:
        yield key, f"{key}={format_value(now)}"


def _is_within(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _is_pair(key: str) -> bool:
    return key.startswith("pairs.")


def _list_keys(tree: Mapping[str, Any], section: str) -> set[str]:
    return {f"{section}.{name}" for name in tree}
