"""Trials of recipes: what each keeps of the float model's answers, and what it costs. Cached."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from efv2_ros.errors import Efv2Error
from efv2_ros.evaluation.statistics import Interval, paired_difference, wilson
from efv2_ros.files import open_atomic
from efv2_ros.quantize.build import Built, Level, Plan, build, make_plan
from efv2_ros.quantize.calibration import digest
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.fidelity import compare, float_logits, quantized_logits
from efv2_ros.quantize.prepare import Inputs, digest_text
from efv2_ros.quantize.recipe import Recipe
from efv2_ros.resources import cache_dir
from efv2_ros.toolchain.environment import Stopped, ToolchainUnavailableError
from efv2_ros.toolchain.jobs import OnProgress
from efv2_ros.toolchain.protocol import Layer
from efv2_ros.toolchain.typed_json import decode

_FORMAT = 1
"""Version of a trial's file."""

_Value = TypeVar("_Value")

Kind = Literal["score", "cost"]
"""What a trial finds out: a `Score` or a `Cost`."""


@dataclass(frozen=True)
class Score:
    """What a quantised model keeps of the float model's answers, image by image.

    Attributes:
        cosines: Cosine of both models' logits.
        agreed: Whether both have the same best class.
        right: Of the images of known class, whether the float model has it, and the quantised;
            empty for an untrained network.
    """

    cosines: tuple[float, ...]
    agreed: tuple[bool, ...]
    right: tuple[tuple[bool, bool], ...] = ()

    @cached_property
    def cosine(self) -> float:
        """Mean of the cosines."""
        return float(np.mean(self.cosines))

    @property
    def worst(self) -> float:
        """The least cosine."""
        return min(self.cosines)

    @property
    def agreement(self) -> float:
        """Share of the images with the same best class."""
        return sum(self.agreed) / len(self.agreed)

    @property
    def agreement_interval(self) -> Interval:
        """Wilson's interval of `agreement`."""
        return wilson(sum(self.agreed), len(self.agreed))

    @property
    def drop(self) -> float:
        """Lost top-1 accuracy where classes are known, else lost agreement; a share of 1."""
        if not self.right:
            return 1 - self.agreement
        before, after = (sum(each[side] for each in self.right) for side in (0, 1))
        return (before - after) / len(self.right)

    def agreement_beyond(self, other: Score) -> tuple[float, Interval]:
        """Compare with another model on the same images.

        Returns:
            This model's agreement minus the other's, and the interval of that difference.
        """
        pairs = list(zip(self.agreed, other.agreed, strict=True))
        only_self = sum(one and not two for one, two in pairs)
        only_other = sum(two and not one for one, two in pairs)
        count = len(pairs)
        return (only_self - only_other) / count, paired_difference(only_self, only_other, count)


@dataclass(frozen=True)
class Cost:
    """The compiler's estimate of a compiled model. No board measured it.

    Attributes:
        milliseconds: Latency of a frame.
        fps: Frames per second of one core.
        ddr_bytes: Bytes of memory traffic a frame.
        level: The compiler's effort.
        layers: All layers, in the compiler's order.
        subgraphs: Pieces the model was cut into; of more than one, the CPU's time is not counted.
    """

    milliseconds: float
    fps: float
    ddr_bytes: int
    level: str
    layers: tuple[Layer, ...] = ()
    subgraphs: int = 1

    def slowest(self, count: int) -> list[Layer]:
        """The layers that take longest."""
        return sorted(self.layers, key=lambda each: (-each.microseconds, each.name))[:count]


class Bench(Protocol):
    """Tries a recipe. `ToolchainBench` does so with the toolchain."""

    def key(self, recipe: Recipe, kind: Kind) -> str:
        """Digest of all that a trial's result depends on."""

    def score(self, recipe: Recipe, on_progress: OnProgress) -> Score:
        """Quantise, and compare with the float model."""

    def cost(self, recipe: Recipe, on_progress: OnProgress) -> Cost:
        """Compile."""


class ToolchainBench:
    """Tries recipes with the toolchain, in temporary folders.

    Args:
        inputs: The float model and its images; some are needed to compare the models with.
        level: The compiler's effort for costs.
        jobs: Threads of each compiler; 0 for one a core.
        should_stop: Polled.

    Raises:
        QuantizeError: There are no images to compare the models with.
    """

    def __init__(
        self,
        inputs: Inputs,
        level: Level = "O2",
        jobs: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if not inputs.evaluation:
            raise QuantizeError("there are no images to compare the models with")
        self._inputs, self._level, self._jobs, self._should_stop = inputs, level, jobs, should_stop
        self._lock = threading.Lock()
        self._images = digest(inputs.evaluation)

    @cached_property
    def _float_logits(self) -> Any:
        return float_logits(self._inputs, self._inputs.evaluation, should_stop=self._should_stop)

    def key(self, recipe: Recipe, kind: Kind) -> str:
        """Digest of all that a trial's result depends on."""
        plan = self._plan(recipe, quantize_only=kind == "score")
        return digest_text(str(_FORMAT), plan.key, self._images if kind == "score" else "")

    def _plan(self, recipe: Recipe, *, quantize_only: bool) -> Plan:
        # The compiler's effort changes nothing before it compiles.
        level: Level = "O0" if quantize_only else self._level
        return make_plan(self._inputs, recipe, level, quantize_only=quantize_only)

    def score(self, recipe: Recipe, on_progress: OnProgress = lambda step, share: None) -> Score:
        """Quantise, and compare with the float model on the images that were held out.

        Raises:
            ToolchainError: The recipe cannot be used for the model.
            Stopped: `should_stop` returned True.
        """
        with self._build(
            self._plan(recipe, quantize_only=True),
            lambda step, share: on_progress(step, share / 2),
        ) as built:
            logits, _ = quantized_logits(
                built, self._inputs.evaluation, use_cache=False, should_stop=self._should_stop,
                on_progress=lambda step, share: on_progress(step, 0.5 + share / 2),
            )  # fmt: skip
        with self._lock:
            before = self._float_logits
        found = compare(self._inputs, before, logits)
        by_sample = {id(each.sample): each for each in found.changes}
        changes = [by_sample[id(each)] for each in self._inputs.evaluation]
        trained = not self._inputs.source.model.file.untrained
        return Score(
            tuple(each.cosine for each in changes),
            tuple(each.before.class_id == each.after.class_id for each in changes),
            tuple(
                (each.before.class_id == each.class_id, each.after.class_id == each.class_id)
                for each in changes
                if each.class_id is not None and trained
            ),
        )

    def cost(self, recipe: Recipe, on_progress: OnProgress = lambda step, share: None) -> Cost:
        """Compile, and read the compiler's estimate.

        Raises:
            ToolchainError: The recipe cannot be used for the model.
            Stopped: `should_stop` returned True.
        """
        with self._build(self._plan(recipe, quantize_only=False), on_progress) as built:
            found = built.result.estimate
        if found is None:
            raise QuantizeError("the compiler gave no estimate")
        return Cost(
            found.milliseconds, found.fps, found.ddr_bytes, self._level, found.layers,
            found.subgraphs,
        )  # fmt: skip

    @contextmanager
    def _build(self, plan: Plan, on_progress: OnProgress) -> Any:
        """Build in a folder that is gone afterwards: a trial's models take 50 MB and more."""
        with tempfile.TemporaryDirectory(prefix="efv2_trial_") as folder:
            built: Built = build(
                self._inputs, plan, Path(folder) / "model", jobs=self._jobs,
                on_progress=on_progress, should_stop=self._should_stop,
            )  # fmt: skip
            yield built


@dataclass(frozen=True)
class Outcome(Generic[_Value]):
    """What came of a trial.

    Attributes:
        value: The result; None where the recipe could not be used.
        problem: Why not.
        cached: Whether it was known before.
    """

    value: _Value | None
    problem: str = ""
    cached: bool = False


class Trial(NamedTuple):
    """A trial to make.

    Attributes:
        recipe: The recipe.
        kind: What to find out.
        key: Digest of all that the result depends on; see `Bench.key`.
    """

    recipe: Recipe
    kind: Kind
    key: str


def attempt(
    bench: Bench, trial: Trial, on_progress: OnProgress = lambda step, share: None
) -> Outcome[Any]:
    """Make a trial.

    Raises:
        Stopped: The bench was stopped.
        ToolchainUnavailableError: The toolchain is missing.
    """
    try:
        if trial.kind == "score":
            return Outcome(bench.score(trial.recipe, on_progress))
        return Outcome(bench.cost(trial.recipe, on_progress))
    except (Stopped, ToolchainUnavailableError):
        raise
    except Efv2Error as error:
        # The log is gone with the trial's folder.
        return Outcome(None, str(error).partition("; its log ")[0])


class Elsewhere(Protocol):
    """Makes trials outside this process. `TrialWorkers` does so in workers."""

    def outcomes(
        self, trials: Mapping[int, Trial], should_stop: Callable[[], bool]
    ) -> Iterator[tuple[int, Outcome[Any]]]:
        """Make trials.

        Args:
            trials: The trials, each with a number of its own.
            should_stop: Polled; True ends the iteration.

        Yields:
            The number of a trial that came to an end, and its outcome.
        """


Named = tuple[str, Recipe]
"""A recipe with a name for people, for the progress."""


class Trials:
    """Tries recipes, several at once, and keeps each result in a file of its own.

    A trial that fails is not kept: the machine may be at fault. It is tried again in the next run.

    Args:
        bench: What tries.
        folder: Where the results are; None is the user's cache.
        parallel: Trials at once.
        elsewhere: What makes the trials instead of this process; `bench` then only gives keys.
        on_progress: Called with what is done now, and its share that is done; from any thread.
        should_stop: Polled before each trial.

    Attributes:
        tried: Number of trials that were made, rather than known before.
        finished: Number of trials that were asked for and have come to an end.
    """

    def __init__(
        self,
        bench: Bench,
        folder: Path | None = None,
        *,
        parallel: int = 1,
        elsewhere: Elsewhere | None = None,
        on_progress: OnProgress = lambda step, share: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.tried = self.finished = 0
        self._bench = bench
        self._folder = folder or cache_dir() / "quantize" / "trials"
        self._parallel, self._elsewhere = parallel, elsewhere
        self._on_progress, self._should_stop = on_progress, should_stop
        self._lock = threading.Lock()
        self._failed: dict[str, str] = {}
        self._keys: dict[tuple[Recipe, str], str] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QuantizeError(
                f"cannot keep trials in {self._folder}: {error.strerror or error}"
            ) from error

    def scores(self, recipes: Sequence[Named]) -> list[Outcome[Score]]:
        """Try recipes for what they keep of the answers.

        Raises:
            Stopped: `should_stop` returned True; what was finished is kept.
        """
        return self._map(recipes, "score", _read_score)

    def costs(self, recipes: Sequence[Named]) -> list[Outcome[Cost]]:
        """Compile recipes.

        Raises:
            Stopped: `should_stop` returned True; what was finished is kept.
        """
        return self._map(recipes, "cost", _read_cost)

    def key(self, recipe: Recipe) -> str:
        """Digest of a recipe with its model and images.

        Raises:
            Efv2Error: The recipe does not fit the model.
        """
        return self._key(recipe, "score")

    def _key(self, recipe: Recipe, kind: Kind) -> str:
        """Ask the bench, which rewrites the whole model for it, once for each recipe."""
        what = replace(recipe, name="", description=""), kind
        if what not in self._keys:
            self._keys[what] = self._bench.key(recipe, kind)
        return self._keys[what]

    def _map(
        self, recipes: Sequence[Named], kind: Kind, read: Callable[[Any], _Value]
    ) -> list[Outcome[_Value]]:
        if self._elsewhere is not None:
            return self._map_elsewhere(self._elsewhere, recipes, kind, read)

        def one(named: Named) -> Outcome[_Value]:
            name, recipe = named
            outcome = self._known(recipe, kind, read)
            if outcome is None:
                outcome = attempt(
                    self._bench, Trial(recipe, kind, self._key(recipe, kind)),
                    lambda step, share: self._on_progress(f"{name}: {step}", share),
                )  # fmt: skip
                self._keep(recipe, kind, outcome)
            self._count(outcome)
            return outcome

        if self._parallel == 1 or len(recipes) == 1:
            return [one(each) for each in recipes]
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(one, recipes))

    def _map_elsewhere(
        self,
        elsewhere: Elsewhere,
        recipes: Sequence[Named],
        kind: Kind,
        read: Callable[[Any], _Value],
    ) -> list[Outcome[_Value]]:
        found: dict[int, Outcome[_Value]] = {}
        unknown: dict[int, Trial] = {}
        for number, (_, recipe) in enumerate(recipes):
            outcome = self._known(recipe, kind, read)
            if outcome is None:
                unknown[number] = Trial(recipe, kind, self._key(recipe, kind))
            else:
                found[number] = outcome
                self._count(outcome)
        for number, outcome in elsewhere.outcomes(unknown, self._should_stop):
            name, recipe = recipes[number]
            self._keep(recipe, kind, outcome)
            self._count(outcome)
            self._on_progress(f"{name}: done", 1.0)
            found[number] = outcome
        if len(found) < len(recipes):
            raise Stopped
        return [found[number] for number in range(len(recipes))]

    def _known(
        self, recipe: Recipe, kind: Kind, read: Callable[[Any], _Value]
    ) -> Outcome[_Value] | None:
        """What is known of a trial before it is made; None if it must be made."""
        if self._should_stop():
            raise Stopped
        try:
            key = self._key(recipe, kind)
        except ToolchainUnavailableError:
            raise
        except Efv2Error as error:  # the recipe does not fit the model
            return Outcome(None, str(error))
        path = self._path(key, kind)
        with suppress(OSError, ValueError, KeyError, TypeError, Efv2Error):
            return Outcome(read(json.loads(path.read_text(encoding="utf-8"))["result"]), "", True)
        return Outcome(None, self._failed[key]) if key in self._failed else None

    def _keep(self, recipe: Recipe, kind: Kind, outcome: Outcome[Any]) -> None:
        """Keep what came of a trial: in a file, or why it failed until this run ends."""
        key = self._key(recipe, kind)
        if outcome.value is None:
            self._failed[key] = outcome.problem
            return
        fields = {"format": _FORMAT, "recipe": recipe.as_dict(), "result": asdict(outcome.value)}
        with open_atomic(self._path(key, kind)) as file:
            json.dump(fields, file)

    def _count(self, outcome: Outcome[Any]) -> None:
        with self._lock:
            self.finished += 1
            self.tried += not outcome.cached and outcome.value is not None

    def _path(self, key: str, kind: Kind) -> Path:
        return self._folder / f"{key[:32]}.{kind}.json"


def _read_score(fields: Any) -> Score:
    return Score(
        tuple(map(float, fields["cosines"])),
        tuple(map(bool, fields["agreed"])),
        tuple((bool(one), bool(two)) for one, two in fields["right"]),
    )


def _read_cost(fields: Any) -> Cost:
    return decode(Cost, fields)
