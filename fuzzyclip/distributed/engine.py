"""The same work on many GPUs and machines: Ray Data hands pieces of it to actors.

Ray is an optional extra, imported where it is used. An actor runs the code that also runs without
Ray; what comes out is the same, byte for byte. Pieces are written so that a second try changes
nothing (a file is there whole or not at all), and so a lost machine costs time alone: what it had
not finished is done again by another one.

Every machine needs this package and sees the same files under the same absolute paths.
"""

import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.features.encode import PASS_IMAGES, encode_shards
from fuzzyclip.features.shards import Shard

#: CPUs, and so threads of torch, for an actor without a GPU.
CPUS_PER_ACTOR = 2
#: Share of a CPU that an actor books. Actors that book all of them leave none for Ray's own tasks.
BOOKED = 0.5
#: Object store of a Ray that is started here: only names travel through it, never pixels.
STORE_BYTES = 256 * 2**20
#: Errors that are told as they would be without Ray: trying again would not help.
TOLD = (OSError, ValueError, RuntimeError, ImportError)


class Outcome(NamedTuple):
    """The outcome of a piece of work: images done, and how many of them could not be read."""

    images: int
    unreadable: int = 0


@dataclass(frozen=True)
class Work:
    """A kind of work for actors.

    Attributes:
        prepare: called once in each actor, for example to build a model; a function, picklable.
            Its answer does a group of items, and may be given the same group again.
        group: items that an actor takes at a time, at most.
        count: images of an item, for the progress bar.
        title: shown beside it.
    """

    prepare: Callable[[], Callable[[list[Any]], Outcome]]
    group: int
    count: Callable[[Any], int]
    title: str = ""


def encode_shards_on_ray(
    shards: Sequence[Shard],
    build: Callable[[], Backbone],
    *,
    batch_size: int = PASS_IMAGES,
    workers: int = 1,
    address: str | None = None,
    actors: int | None = None,
    use_gpus: bool = True,
    threads: int | None = None,
    title: str = "",
) -> None:
    """`fuzzyclip.features.encode.encode_shards` by actors: the same files, byte for byte.

    Args:
        shards: what to write. Paths are made absolute; all machines must share them.
        build: gives the backbone the shards were planned with, on the device `auto` or `cpu`;
            called once in each actor. `functools.partial(load_backbone, ...)` will do.
        batch_size: images a pass, as of `encode_shards`.
        workers: threads of each actor that open images ahead.
        address, actors, use_gpus, threads: as `run_on_ray` takes them.
        title: shown beside the progress bar.

    Raises:
        OSError: as `encode_shards`, or the machines do not share the files. Finished shards stay.
        ValueError: Ray is not installed, or an actor's backbone is another one.
    """
    placed = [_make_absolute(shard) for shard in shards]
    work = Work(
        prepare=_PrepareEncoding(build, batch_size, workers),
        group=8,  # inside it the next shard's images are decoded while this one is computed
        count=lambda shard: len(shard.images),
        title=title,
    )
    run_on_ray(placed, work, address=address, actors=actors, use_gpus=use_gpus, threads=threads)
    for shard in placed:
        if not shard.is_placed():
            raise OSError(
                f"{shard.path} was written but is not here as it should be: all machines must "
                "share it and have the same version of this package"
            )


def _make_absolute(shard: Shard) -> Shard:
    images = tuple(image.absolute() for image in shard.images)
    return replace(shard, path=shard.path.absolute(), images=images)


@dataclass(frozen=True)
class _PrepareEncoding:
    """Builds a backbone in an actor, and encodes shards with it."""

    build: Callable[[], Backbone]
    batch_size: int
    workers: int

    def __call__(self) -> Callable[[list[Shard]], Outcome]:
        backbone = self.build()

        def encode(shards: list[Shard]) -> Outcome:
            for shard in shards:
                if shard.header["backbone"] != backbone.identity:
                    raise ValueError(
                        f"{shard.path}: planned with another backbone than the actor's"
                    )
            missing = [shard for shard in shards if not shard.is_written()]  # of an earlier try
            encode_shards(missing, backbone, batch_size=self.batch_size, workers=self.workers)
            return Outcome(sum(len(shard.images) for shard in shards))

        return encode


def run_on_ray(
    items: Sequence[Any],
    work: Work,
    *,
    address: str | None = None,
    actors: int | None = None,
    use_gpus: bool = True,
    threads: int | None = None,
) -> Outcome:
    """Do all items; what a lost machine or actor had begun is done again elsewhere.

    Args:
        items: picklable, small: names rather than content.
        work: what is done with them.
        address: of a running cluster, as `ray start` prints it, or `auto` for the one that runs on
            this machine; None starts Ray here and stops it again. A Ray that this process is
            connected to is used as it is.
        actors: how many at most; None for one a GPU, or else one for every two CPUs.
        use_gpus: whether an actor gets a GPU of its own where the cluster has any. It is then the
            only one that torch sees there.
        threads: of torch in each actor; None for two. Measured on CPUs, the image tower gives the
            same bytes with any number; a sum over a whole tensor does not, so give a scorer that
            has one the number of the run it is compared with (`torch.get_num_threads()`). Other
            kinds of CPU or GPU may give other last digits, with and without Ray.

    Returns:
        Images done, and how many of them could not be read.

    Raises:
        ValueError: Ray is not installed; or an actor's.
        OSError: an actor's: in the words in which it comes without Ray.
        RuntimeError: an actor's.
        ImportError: an actor's: its machine lacks a package.
    """
    if not items:
        return Outcome(0)
    total, done, unreadable = sum(map(work.count, items)), 0, 0
    with (
        _connect(address) as ray,
        tqdm(total=total, desc=work.title, unit="image", disable=None, leave=False) as progress,
    ):
        pool = size_pool(ray.cluster_resources(), actors, use_gpus)
        # Closed before Ray is left: an error stops the actors, and nothing of Ray outlives it.
        with closing(_stream(ray, items, work, pool, threads or CPUS_PER_ACTOR)) as rows:
            for row in rows:
                if row["kind"]:
                    raise {kind.__name__: kind for kind in TOLD}[row["kind"]](row["error"])
                done, unreadable = done + row["images"], unreadable + row["unreadable"]
                progress.update(row["images"])
    return Outcome(done, unreadable)


class Pool(NamedTuple):
    """Actors at most, and what each of them books."""

    actors: int
    gpus: int
    cpus: float


def size_pool(resources: dict[str, float], actors: int | None, use_gpus: bool) -> Pool:
    """The pool for a cluster's resources, as Ray names them; see `run_on_ray`."""
    gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 1.0)
    if use_gpus and gpus:
        return Pool(actors or gpus, 1, BOOKED)
    count = actors or max(1, int(cpus) // CPUS_PER_ACTOR)
    return Pool(count, 0, max(0.01, min(BOOKED, cpus * BOOKED / count)))


def _stream(
    ray: Any, items: Sequence[Any], work: Work, pool: Pool, threads: int
) -> Generator[dict[str, Any], None, None]:
    """The actors' answers, a row a group, as they finish."""
    size = max(1, min(work.group, len(items) // (4 * pool.actors)))  # work for all, to the end
    groups = [items[first : first + size] for first in range(0, len(items), size)]
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns that it shows no bars
    try:
        pickled = [{"group": pickle.dumps(list(group))} for group in groups]
        answers = ray.data.from_items(pickled, override_num_blocks=len(groups)).map_batches(
            _Actor,
            # As bytes: functions of a script travel too, and a missing module is an answer.
            fn_constructor_kwargs={
                "prepare": ray.cloudpickle.dumps(work.prepare),
                "threads": threads,
            },
            batch_size=1,
            num_gpus=pool.gpus,
            num_cpus=pool.cpus,
            # A pool that must not be full can lose machines. Two tasks an actor: one waits.
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                initial_size=min(pool.actors, len(groups)),
                max_size=min(pool.actors, len(groups)),
                max_tasks_in_flight_per_actor=2,
            ),
        )
        yield from answers.iter_rows()
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before


class _Actor:
    """Lives in one process of the cluster; prepares once, then does group after group."""

    def __init__(self, prepare: bytes, threads: int) -> None:
        torch.set_num_threads(threads)
        self._prepare = prepare
        self._do: Callable[[list[Any]], Outcome] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """One group; an error that trying again would not mend becomes an answer."""
        (group,) = batch["group"]
        outcome, kind, error = Outcome(0), "", ""
        try:
            if self._do is None:
                self._do = pickle.loads(self._prepare)()
            outcome = self._do(pickle.loads(group))
        except TOLD as caught:
            kind = next(each.__name__ for each in TOLD if isinstance(caught, each))
            error = str(caught)
        return {
            "images": [outcome.images],
            "unreadable": [outcome.unreadable],
            "kind": [kind],
            "error": [error],
        }


@contextmanager
def _connect(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected; what is started here is stopped here."""
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    started = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    ray.init(
        address=address or "local",
        logging_level="error",
        log_to_driver=False,  # errors come back as answers
        **({} if address else started),
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """The module `ray` with `ray.data`, told to report nothing to its makers.

    Raises:
        ValueError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("Ray is not installed: pip install -e '.[ray]'") from error
    return ray
