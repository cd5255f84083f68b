"""The folder of a fleet's results: a run for each bag, and a summary.

    RESULTS/fleet.json       what was replayed how, and what came of each bag
    RESULTS/NAME.jsonl       the run of a bag, as `efv2 replay BAG --jsonl` writes it
    RESULTS/.parts/          runs of the spans of bags that are not complete

Everything is written beside its place and renamed, so the folder can be used again after any
interruption: what is in it is not replayed again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from efv2_ros import __version__
from efv2_ros.bags.bag import Span
from efv2_ros.files import open_atomic
from efv2_ros.fleet.errors import FleetError
from efv2_ros.fleet.sources import Source, version_of
from efv2_ros.fleet.tasks import Cut, Job
from efv2_ros.replay.run import Run, RunError, in_stamp_order, read_jsonl, save_jsonl

SUMMARY = "fleet.json"
"""Name of the summary in the folder of results."""

_FORMAT = 1
_PARTS = ".parts"
_SAVE_S = 1.0
"""How often the summary is written while bags end."""


@dataclass(frozen=True)
class BagResult:
    """What came of a bag.

    Attributes:
        bag: Its path or URL.
        name: Name of its results.
        status: `done`, also of a damaged bag of which something was read; or `failed`, which the
            next run tries again.
        images: Number of its images.
        dropped: Number of images without a result, by cause.
        problems: A sentence for each thing that went wrong.
        seconds: Time that workers spent on it, all together.
        version: Size and time of change of its files; empty if unknown, as of URLs.
    """

    bag: str
    name: str
    status: str
    images: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    seconds: float = 0.0
    version: str = ""

    @property
    def done(self) -> bool:
        """Whether it need not be replayed again."""
        return self.status == "done"


class Results:
    """A folder of results, which is made if there is none.

    Args:
        folder: The folder.
        job: What its runs are made with.
        timings: Whether its runs hold each image's durations.
        parquet: Where its runs also go, as Parquet files.

    Attributes:
        folder: As given.
        bags: What came of each bag, by name; complete when all are replayed.

    Raises:
        FleetError: It holds results of another job, or cannot be used.
        FileWriteError: It cannot be written.
    """

    def __init__(
        self, folder: Path, job: Job, *, timings: bool = False, parquet: Path | None = None
    ) -> None:
        self.folder, self._timings = folder, timings
        self.bags: dict[str, BagResult] = {}
        self._settings = _settings(job, timings, parquet)
        self._model = ""
        self._saved = 0.0
        try:
            (folder / _PARTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FleetError(f"cannot make the folder {folder}: {error.strerror}") from error
        self._load()
        self.save()

    def path(self, name: str) -> Path:
        """Where the run of a bag is."""
        return self.folder / f"{name}.jsonl"

    def check_model(self, model: str) -> None:
        """Check that a result is of the same model as all others here; see `Replayed.model`.

        Raises:
            FleetError: It is not.
        """
        self._model = self._model or model
        if model != self._model:
            raise FleetError(
                f"{self.folder} holds results of the model {self._model}, and a worker has "
                f"{model}: give all the same model, or choose another folder"
            )

    def known(self, source: Source) -> BagResult | None:
        """Return what came of a bag, if it need not be replayed again."""
        found = self.bags.get(source.name)
        if found is None or not found.done or not self.path(source.name).is_file():
            return None
        same = (found.bag, found.version) == (source.location, version_of(source.location))
        return found if same else None

    def add(self, result: BagResult, run: Run | None = None) -> None:
        """Keep what came of a bag, and its run.

        Raises:
            FileWriteError: It cannot be written.
        """
        if run is not None:
            save_jsonl(run, self.path(result.name), timings=self._timings)
        self.bags[result.name] = result
        self.drop_parts(result.name)
        if time.monotonic() - self._saved > _SAVE_S:
            self.save()

    def save(self) -> None:
        """Write the summary.

        Raises:
            FileWriteError: It cannot be written.
        """
        document = {
            "format": _FORMAT,
            "settings": self._settings,
            "model": self._model,
            "bags": [asdict(each) for _, each in sorted(self.bags.items())],
        }
        with open_atomic(self.folder / SUMMARY) as file:
            json.dump(document, file, indent=1)
            file.write("\n")
        self._saved = time.monotonic()

    def finish(self) -> None:
        """Write the summary, and remove what only an unfinished run needs.

        Raises:
            FileWriteError: It cannot be written.
        """
        self.save()
        shutil.rmtree(self.folder / _PARTS, ignore_errors=True)

    # Spans of bags

    def keep_cut(self, source: Source, cut: Cut) -> None:
        """Keep how a bag is cut, which its parts belong to.

        Raises:
            FileWriteError: It cannot be written.
        """
        self.drop_parts(source.name)
        plan = {"bag": source.location, "version": version_of(source.location)} | asdict(cut)
        with open_atomic(self._plan(source.name)) as file:
            json.dump(plan, file)

    def kept_cut(self, source: Source) -> Cut | None:
        """Return how an unfinished bag is cut; None if that is not known."""
        try:
            plan = json.loads(self._plan(source.name).read_text(encoding="utf-8"))
            if (plan["bag"], plan["version"]) != (source.location, version_of(source.location)):
                return None
            spans = tuple(Span(*each) for each in plan["spans"])
            return Cut(str(plan["topic"]), int(plan["images"]), spans)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_part(self, name: str, index: int, run: Run) -> None:
        """Keep the run of a span.

        Raises:
            FileWriteError: It cannot be written.
        """
        save_jsonl(run, self._part(name, index), timings=True)

    def kept_part(self, name: str, index: int) -> Run | None:
        """Return the run of a span; None if there is none."""
        try:
            return read_jsonl(self._part(name, index))
        except RunError:
            return None

    def joined_parts(self, name: str, count: int) -> Run:
        """Join the runs of a bag's spans to the run of the bag.

        Raises:
            RunError: One of them cannot be read any more.
        """
        info: dict[str, Any] = {}
        labels: dict[int, str] = {}
        frames = []
        for index in range(count):
            run = read_jsonl(self._part(name, index))
            info = info or run.info
            labels |= run.labels
            frames += run.frames
        return Run(info, labels, in_stamp_order(frames))

    def drop_parts(self, name: str) -> None:
        """Forget the spans of a bag."""
        for each in self._parts(name):
            each.unlink(missing_ok=True)

    def _plan(self, name: str) -> Path:
        return self.folder / _PARTS / f"{name}.json"

    def _part(self, name: str, index: int) -> Path:
        return self.folder / _PARTS / f"{name}.{index}.jsonl"

    def _parts(self, name: str) -> list[Path]:
        folder = self.folder / _PARTS
        plan = self._plan(name)
        parts = (each for each in folder.iterdir() if each.name.startswith(f"{name}."))
        numbered = [
            each for each in parts
            if each.name.removeprefix(f"{name}.").removesuffix(".jsonl").isdigit()
        ]  # fmt: skip
        return [plan, *numbered]

    def _load(self) -> None:
        """Read the summary of an earlier run."""
        path = self.folder / SUMMARY
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            settings = dict(document["settings"])
            self._model = str(document["model"])
            bags = [
                BagResult(**{**each, "problems": tuple(each["problems"])})
                for each in document["bags"]
            ]
        except FileNotFoundError:
            if next(self.folder.glob("*.jsonl"), None) is not None:
                raise FleetError(
                    f"{self.folder} holds runs, but no {SUMMARY}: choose another folder"
                ) from None
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FleetError(f"{path} cannot be read ({error}): choose another folder") from error
        others = sorted(
            key for key in {*settings, *self._settings}
            if settings.get(key) != self._settings.get(key)
        )  # fmt: skip
        if others:
            was = ", ".join(f"{key} was {settings.get(key)}" for key in others)
            raise FleetError(
                f"{self.folder} holds results of other settings ({was}): choose another folder"
            )
        self.bags = {each.name: each for each in bags}


def _settings(job: Job, timings: bool, parquet: Path | None) -> dict[str, Any]:
    """Everything that the runs depend on, in JSON's types."""
    request = asdict(job.request)
    for name in ("allow_download", "allow_untrained", "slots", "threads", "infer_timeout"):
        del request[name]
    settings = {
        "efv2_ros": __version__, **request, **asdict(job.view), "topic": job.topic,
        "frame_id": job.frame_id, "timings": timings,
        "parquet": None if parquet is None else str(parquet.absolute()),
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain
