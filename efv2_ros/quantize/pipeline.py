"""The way from checked inputs to result folders, for one recipe or several at once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efv2_ros.quantize.build import Level, build, make_plan
from efv2_ros.quantize.check import Remark
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.fidelity import known_classes, measure
from efv2_ros.quantize.prepare import Inputs
from efv2_ros.quantize.proof import prove
from efv2_ros.quantize.recipe import Recipe
from efv2_ros.quantize.report import Limits, Outcome
from efv2_ros.quantize.result import check_out, result_name, write_result

_BUILDING = 0.8
"""Share of the work that is done before the models are compared."""

OnRecipeProgress = Callable[[str, str, float], None]
"""Called with a recipe's name, what is done for it now, and the share that is done."""


@dataclass(frozen=True)
class Task:
    """What to make of the inputs.

    Attributes:
        recipes: The recipes, with different names.
        out: Folder of the result; of several recipes, the folder of their folders.
        name: Name of the result; empty for the model's and the recipe's.
        level: The compiler's effort.
        jobs: Cores to use.
        limits: What the results must keep to.
        use_cache: Whether results come from the cache and go there.
    """

    recipes: Sequence[Recipe]
    out: Path
    name: str = ""
    level: Level = "O2"
    jobs: int = 1
    limits: Limits = Limits()
    use_cache: bool = True

    def place(self, recipe: Recipe) -> Path:
        """Folder of a recipe's result."""
        return self.out / recipe.name if len(self.recipes) > 1 else self.out

    def check_places(self) -> None:
        """Check that the results can be written, before the work.

        Raises:
            QuantizeError: One cannot.
        """
        if len(self.recipes) == 1:
            check_out(self.out)
            return
        if not self.out.is_dir():
            check_out(self.out)
            return
        for recipe in self.recipes:
            check_out(self.place(recipe))


@dataclass(frozen=True, eq=False)
class Made:
    """A result that was written.

    Attributes:
        outcome: All that is known of it.
        report: The same as JSON's types.
        folder: Where it is.
    """

    outcome: Outcome
    report: dict[str, Any]
    folder: Path


def check_limits(inputs: Inputs, limits: Limits) -> None:
    """Refuse limits that cannot be told for want of images, before the work.

    Raises:
        QuantizeError: There is none to compare with, or the class of none is known.
    """
    if limits.min_agreement is None and limits.max_drop is None:
        return
    if not inputs.evaluation:
        raise QuantizeError(
            "there are no images to compare the models with, for --min-agreement or --max-drop: "
            "give --eval"
        )
    known = known_classes(inputs, inputs.evaluation)
    if limits.max_drop is not None and all(each is None for each in known):
        raise QuantizeError(
            "the class of no image is known, for --max-drop: put the images into folders named "
            "by class"
        )


def quantize_all(
    inputs: Inputs,
    remarks: Sequence[Remark],
    task: Task,
    *,
    on_progress: OnRecipeProgress = lambda recipe, step, share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Made]:
    """Quantise with each recipe and write the results, several at once where there are cores.

    Args:
        inputs: The float model and its images.
        remarks: Of the calibration check.
        task: What to make.
        on_progress: See `OnRecipeProgress`; called in several threads.
        should_stop: Polled; ends all work.

    Yields:
        The results, in the order of the recipes.

    Raises:
        Stopped: `should_stop` returned True.
        Efv2Error: One cannot be made; those that were written before stay.
    """
    parallel = max(1, min(len(task.recipes), task.jobs))
    has_ended = False
    if len(task.recipes) > 1:
        _make(task.out)

    def stopped() -> bool:
        return has_ended or should_stop()

    def work(recipe: Recipe) -> Made:
        return _quantize(inputs, remarks, task, recipe, task.jobs // parallel,
                         on_progress, stopped)  # fmt: skip

    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(work, recipe) for recipe in task.recipes]
        try:
            for future in futures:
                yield future.result()
        finally:
            has_ended = True
            for future in futures:
                future.cancel()


def _quantize(
    inputs: Inputs,
    remarks: Sequence[Remark],
    task: Task,
    recipe: Recipe,
    jobs: int,
    on_progress: OnRecipeProgress,
    should_stop: Callable[[], bool],
) -> Made:
    def on_build(step: str, share: float) -> None:
        on_progress(recipe.name, step, _BUILDING * share)

    def on_run(step: str, share: float) -> None:
        on_progress(recipe.name, step, _BUILDING + (1 - _BUILDING) * share)

    on_progress(recipe.name, "rewriting the model", 0.0)
    plan = make_plan(inputs, recipe, task.level, should_stop=should_stop)
    place = task.place(recipe)
    with _scratch(place, task.use_cache) as folder:
        built = build(
            inputs, plan, folder, jobs=jobs, use_cache=task.use_cache, on_progress=on_build,
            should_stop=should_stop,
        )  # fmt: skip
        fidelity = measure(
            inputs, built, use_cache=task.use_cache, on_progress=on_run, should_stop=should_stop
        )
        on_progress(recipe.name, "writing the result", 1.0)
        name = task.name or result_name(f"{inputs.source.name}_{recipe.name}")
        outcome = Outcome(name, inputs, built, remarks, prove(built), fidelity, task.limits)
        report = write_result(outcome, place)
    on_progress(recipe.name, "done", 1.0)
    return Made(outcome, report, place)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise QuantizeError(f"cannot make {folder}: {error.strerror or error}") from error


@contextmanager
def _scratch(place: Path, use_cache: bool) -> Iterator[Path | None]:
    """Make a folder for the compiler's files beside the result; None where the cache has them."""
    if use_cache:
        yield None
        return
    parent = place.absolute().parent
    try:
        folder = Path(tempfile.mkdtemp(prefix=".efv2_", dir=parent))
    except OSError as error:
        raise QuantizeError(f"cannot write to {parent}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
