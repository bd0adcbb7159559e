"""`fuzzyclip data`: datasets, outside of the pipeline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fuzzyclip.datasets.base.spec import DatasetSpec
    from fuzzyclip.images.index_file import Index

data = typer.Typer(no_args_is_help=True, help="Datasets: what there is, getting and checking them.")

Name = Annotated[str, typer.Argument(help="Dataset id, as `fuzzyclip data list` shows it.")]
Protocol = Annotated[
    str | None,
    typer.Option(help="Test split; see `fuzzyclip data show NAME`. (default: its first)"),
]
Categories = Annotated[
    list[str] | None, typer.Option("--category", help="Only this one; may be repeated.")
]
Subset = Annotated[bool, typer.Option("--subset", help="Do not compare the numbers of images.")]
Drop = Annotated[bool, typer.Option("--drop", help="Leave out what cannot be used; say what.")]
MaskAbove = Annotated[int, typer.Option(help="Mask values above this are defect.")]


@data.command("list")
def list_datasets() -> None:
    """The datasets and where they come from."""
    from fuzzyclip.datasets import REGISTRY

    for spec in REGISTRY.values():
        free = all(archive.urls for archive in spec.archives) and spec.archives
        how = "downloads itself" if free else "place by hand"
        typer.echo(f"{spec.name:8} {spec.title:20} {how:18} {spec.licence}")


@data.command("show")
def show_dataset(name: Name) -> None:
    """Archives, protocols, categories and numbers of images of one dataset."""
    spec = _find(name)
    lines = [f"{spec.title}  {spec.page}", f"licence: {spec.licence}"]
    lines += [spec.instructions] if spec.instructions else []
    for title, protocol in spec.protocols.items():
        lines += ["", f"protocol {title}: {protocol.summary}"]
        for archive in spec.list_archives(title):
            lines.append(f"  {archive.filename} ({archive.format}), sha256 {archive.sha256}")
            lines += [f"    {url}" for url in archive.urls]
        for category, counts in protocol.counts.items():
            numbers = "  ".join("-" if count is None else f"{count}" for count in counts)
            lines.append(f"  {category} ({spec.categories[category]}): {numbers}")
        if protocol.counts:
            named = "train normal, test normal and anomalous, train anomalous"
            lines.append(f"  numbers: {named}; - not published")
    lines += ["", "protocol meta: the split of the data's own meta.json"]
    typer.echo("\n".join(lines))


@data.command("prepare")
def prepare(
    name: Name,
    out: Annotated[Path, typer.Option(help="Dataset folder to make.")],
    path: Annotated[Path | None, typer.Option(help="Archive or folder placed by hand.")] = None,
    archives: Annotated[Path | None, typer.Option(help="Folder with archives.")] = None,
    protocol: Protocol = None,
    category: Categories = None,
    subset: Subset = False,
    drop: Drop = False,
    mask_above: MaskAbove = 0,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    allow_unverified: Annotated[
        bool, typer.Option("--allow-unverified", help="Take archives with other checksums.")
    ] = False,
) -> None:
    """Get a dataset, check it, and write index.csv and meta.json into its folder.

    The folder then works with AnomalyCLIP, AdaCLIP and others that read meta.json.
    """
    from fuzzyclip.datasets.fetching.fetch import fetch_dataset
    from fuzzyclip.utils.endings import keeping
    from fuzzyclip.utils.files import require_writable

    spec = _find(name)
    chosen = protocol or spec.default_protocol
    require_writable(out.parent, "name another place with --out")
    with keeping("the same command goes on with a download where it was, all else begins anew"):
        record = fetch_dataset(
            spec,
            out,
            protocol=chosen,
            path=path,
            archives_dir=archives,
            downloads_dir=out.with_name(f".{out.name}.download"),
            allow_unverified=allow_unverified,
            download=not offline,
            categories=category,
            replaces=False,
        )
    typer.echo(f"{record['title']}: licence {record['licence']} {record['page']}", err=True)
    _write_index(out, _index(spec, out, chosen, category, subset, drop, mask_above))


@data.command("check")
def check(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Dataset folder, or `folder` data of your own.")],
    protocol: Protocol = None,
    category: Categories = None,
    subset: Subset = False,
    drop: Drop = False,
    mask_above: MaskAbove = 0,
    write: Annotated[
        bool, typer.Option("--write", help="Write index.csv and meta.json into the folder.")
    ] = False,
) -> None:
    """Open every image and mask of a folder where it lies and say all that is wrong with it."""
    from fuzzyclip.utils.files import require_writable

    spec = _find(name)
    if not folder.is_dir():
        kind = "a file, not a folder" if folder.exists() else "no such folder"
        raise FileNotFoundError(f"{folder}: {kind}; name the one with the images")
    if write:
        require_writable(folder, "without --write it is checked as it is")
    chosen = protocol or spec.default_protocol
    index = _index(spec, folder, chosen, category, subset, drop, mask_above)
    if write:
        _write_index(folder, index)


def _find(name: str) -> "DatasetSpec":
    from fuzzyclip.datasets import get_dataset

    return get_dataset(name)


def _index(
    spec: "DatasetSpec",
    folder: Path,
    protocol: str,
    categories: list[str] | None,
    subset: bool,
    drop: bool,
    mask_above: int,
) -> "Index":
    """Index a folder and print its counts."""
    from fuzzyclip.datasets.indexing import build_index
    from fuzzyclip.utils.files import show_line

    index = build_index(
        spec,
        folder,
        protocol=protocol,
        categories=categories,
        expect_counts=not subset and bool(spec.categories),  # of own images nothing is published
        on_error="drop" if drop else "fail",
        mask_above=mask_above,
    )
    for name, counts in index.info["counts"].items():
        typer.echo(
            f"{show_line(name)}: " + ", ".join(f"{key} {count}" for key, count in counts.items())
        )
    images = "1 image" if len(index.frame) == 1 else f"{len(index.frame):,} images"
    typer.echo(f"{images}, protocol {protocol}: {index.info['summary']}")
    return index


def _write_index(folder: Path, index: "Index") -> None:
    """index.csv, index.json and meta.json at the root of a dataset."""
    from fuzzyclip.datasets.base.meta import FILENAME, write_meta
    from fuzzyclip.images.index_file import write_index

    write_index(index, folder / "index.csv", folder / "index.json")
    write_meta(index.frame, index.info, folder / FILENAME)
    typer.echo(f"{folder / FILENAME}, index.csv and index.json written")
