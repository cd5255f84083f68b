"""The work of `efv2 quantize --explain` and `--search`, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from efv2_ros.cli.console import messages, output
from efv2_ros.cli.quantizing import open_inputs
from efv2_ros.cli.workers import Where
from efv2_ros.errors import Efv2Error
from efv2_ros.figures import matplotlib
from efv2_ros.files import open_atomic
from efv2_ros.quantize import front, plots
from efv2_ros.quantize.build import Level, toolchain_versions
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.front import Found, Point, choose
from efv2_ros.quantize.prepare import Inputs, Sources
from efv2_ros.quantize.recipe import Recipe
from efv2_ros.quantize.search import Budget, search
from efv2_ros.quantize.sensitivity import Costs, Effect, Sensitivity, measure_sensitivity
from efv2_ros.quantize.space import Space
from efv2_ros.quantize.tasks import ToolchainBenchSpec, TrialWorkers
from efv2_ros.quantize.trials import ToolchainBench, Trials

_CORES_A_TRIAL = 4
"""More cores do not make a single trial much faster."""


@dataclass(frozen=True)
class Exploration:
    """How to explore the recipes of a model.

    Attributes:
        recipes: The recipes to start from.
        out: Folder of the results.
        level: The compiler's effort.
        cores: Cores to use.
        state: Folder of the trials; None is the cache.
        where: Where the trials are made; this process, if no option is given.
    """

    recipes: Sequence[Recipe]
    out: Path
    level: Level
    cores: int
    state: Path | None
    where: Where = Where()

    @property
    def parallel(self) -> int:
        """Number of trials at once in this process."""
        return max(1, self.cores // _CORES_A_TRIAL)

    @property
    def jobs(self) -> int:
        """Cores of each trial."""
        if self.where.is_given:
            return self.where.cores_each(self.cores) or _CORES_A_TRIAL
        return self.cores // self.parallel

    def check(self) -> None:
        """Check that the results can be written, and say so if there will be no plot.

        Raises:
            QuantizeError: The folder cannot be made.
        """
        try:
            self.out.mkdir(exist_ok=True)
        except OSError as error:
            raise QuantizeError(f"cannot make {self.out}: {error.strerror or error}") from error
        try:
            matplotlib()
        except Efv2Error as error:
            messages.print(f"There will be no plot: {error}", style="yellow", soft_wrap=True)


def explain(
    sources: Sources,
    exploration: Exploration,
    *,
    widths: str,
    costs: Costs,
    force: bool,
    should_stop: Callable[[], bool],
) -> None:
    """Measure the sensitivity of each block; print it, and write it as JSON and as a plot.

    Args:
        sources: The model and the images.
        exploration: With one recipe.
        widths: `int8`, `int16` or `both`: the width of the blocks around the one that differs.
        costs: Where milliseconds come from.
        force: Whether to go on with images that the check refuses.
        should_stop: Polled; ends the work.

    Raises:
        Efv2Error: It cannot be done.
        Stopped: `should_stop` returned True; what was finished is kept.
    """
    with (
        _elsewhere(sources, exploration) as elsewhere,
        open_inputs(sources, force=force, should_stop=should_stop) as (inputs, _),
    ):
        (recipe,) = (each.for_size(inputs.source.size) for each in exploration.recipes)
        parts = Space(inputs.source.proto).parts(recipe)
        gained, lost = widths in ("int8", "both"), widths in ("int16", "both")
        trials_of_each = gained + lost + (costs == "compiled")
        total = 1 + lost + 2 * (costs != "none") + trials_of_each * len(parts.groups)
        with _trials(inputs, exploration, elsewhere, total, should_stop) as (trials, _):
            found = measure_sensitivity(
                trials, recipe, parts, gained=gained, lost=lost, costs=costs
            )
        _print_sensitivity(found, f"{inputs.source.name}, {recipe.name}")
        about = _about(inputs, exploration)
        _write_json(exploration.out / "sensitivity.json", {**about, **found.as_dict()})
        title = (
            f"{inputs.source.name} with the recipe {recipe.name}, {len(inputs.evaluation)} images"
        )
        _plot(
            exploration.out / "sensitivity.png",
            lambda path: plots.write_sensitivity(found, title, path),
        )


def _print_sensitivity(found: Sensitivity, title: str) -> None:
    for width, effects in (
        ("int16", [row.gained for row in found.rows]), ("int8", [row.lost for row in found.rows]),
    ):  # fmt: skip
        if not any(effects):
            continue
        table = Table(title=f"{title}: {width} in one block alone", title_justify="left")
        table.add_column("block", no_wrap=True)
        for heading in ("agreement", "cosine", "int16 costs ms", "cosine a ms"):
            table.add_column(heading, justify="right")
        for row, effect in zip(found.rows, effects, strict=True):
            cost = "" if row.milliseconds is None else f"{row.milliseconds:+.3f}"
            worth = "" if row.worth is None else f"{row.worth:+.4f}"
            table.add_row(row.group, *_effect_cells(effect), cost, worth)
        output.print(table)
    output.print(
        f"Agreement is the share of {len(found.narrow.cosines)} images with the float model's "
        "best class, in points, with its 95 % interval; it and the cosine are measured.",
        soft_wrap=True,
    )
    if found.narrow_cost is not None and found.wide_cost is not None:
        output.print(
            f"All int8: {found.narrow_cost.milliseconds:.2f} ms, all int16: "
            f"{found.wide_cost.milliseconds:.2f} ms, by the compiler's estimate at "
            f"{found.narrow_cost.level}, not a board's. Milliseconds of a block are "
            f"{_COST_SENTENCES[found.costs]}.",
            soft_wrap=True,
        )
    if found.problem:
        messages.print(f"No costs: {found.problem}", style="yellow", soft_wrap=True)
    for row in found.rows:
        if row.problem:
            messages.print(f"{row.group}: {row.problem}", style="yellow", soft_wrap=True)


_COST_SENTENCES = {
    "shared": "the difference of the two, shared out by the times of the layers",
    "compiled": "the difference of a model that was compiled for it",
}


def _effect_cells(effect: Effect | None) -> tuple[str, str]:
    if effect is None:
        return "", ""
    value, low, high = (100 * each for each in (effect.agreement, *effect.interval))
    return f"{value:+.1f} [{low:+.0f}, {high:+.0f}]", f"{effect.cosine:+.5f}"


def find(
    sources: Sources,
    exploration: Exploration,
    budget: Budget,
    *,
    seed: int,
    budget_ms: float | None,
    max_drop: float | None,
    force: bool,
    should_stop: Callable[[], bool],
) -> None:
    """Search for recipes; print the front, and write it as JSON and as a plot.

    Args:
        sources: The model and the images.
        exploration: With the recipes to start from.
        budget: When to end.
        seed: Seed of the random changes.
        budget_ms: Longest latency of the recipe that is chosen.
        max_drop: Most lost top-1 of the recipe that is chosen, a share of 1.
        force: Whether to go on with images that the check refuses.
        should_stop: Polled; ends the work.

    Raises:
        Efv2Error: It cannot be done, or no recipe meets the wishes.
        Stopped: `should_stop` returned True; what was finished is kept.
    """
    with (
        _elsewhere(sources, exploration) as elsewhere,
        open_inputs(sources, force=force, should_stop=should_stop) as (inputs, _),
    ):
        starts = [each.for_size(inputs.source.size) for each in exploration.recipes]
        space = Space(inputs.source.proto)
        with _trials(inputs, exploration, elsewhere, budget.points, should_stop) as (trials, bar):

            def on_point(point: Point, tried: int) -> None:
                bar(tried)
                messages.print(f"{tried} of {budget.points}: {_line(point)}", soft_wrap=True)

            found = search(trials, space, starts, budget, seed=seed, on_point=on_point)
        _print_front(found, inputs.source.name)
        chosen, problem = None, None
        if budget_ms is not None or max_drop is not None:
            try:
                chosen = choose(found.front, budget_ms=budget_ms, max_drop=max_drop)
            except QuantizeError as error:
                problem = error
        about = {**_about(inputs, exploration), "seed": seed}
        _write_json(exploration.out / "front.json", front.as_dict(found, about, chosen))
        title = (
            f"{inputs.source.name}: {len(found.points)} recipes, {len(inputs.evaluation)} images"
        )
        _plot(
            exploration.out / "front.png",
            lambda path: plots.write_front(found, title, chosen, path),
        )
        if problem is not None:
            raise problem
        if chosen is not None:
            path = exploration.out / "chosen.yaml"
            front.write_recipe(chosen.recipe, front.describe(chosen), path)
            output.print(f"chosen: {_line(chosen)}", soft_wrap=True)
            output.print(f"wrote {path}, for --recipe", soft_wrap=True)


def _line(point: Point) -> str:
    if point.problem:
        return f"{point.name}: failed, {point.problem}"
    if point.score is None:
        return point.name
    time = f"{point.cost.milliseconds:.2f} ms" if point.cost is not None else "not compiled"
    return f"{point.name}: cosine {point.score.cosine:.4f}, {time}"


def _print_front(found: Found, title: str) -> None:
    table = Table(title=f"{title}: the front of {len(found.points)} recipes", title_justify="left")
    for heading in ("ms", "FPS", "DDR (MB)", "cosine", "least", "agreement (%)"):
        table.add_column(heading, justify="right")
    table.add_column("recipe", overflow="fold")
    for point in found.front:
        assert point.score is not None and point.cost is not None
        low, high = (100 * each for each in point.score.agreement_interval)
        table.add_row(
            f"{point.cost.milliseconds:.2f}", f"{point.cost.fps:.0f}",
            f"{point.cost.ddr_bytes / 1e6:.2f}", f"{point.score.cosine:.4f}",
            f"{point.score.worst:.4f}",
            f"{100 * point.score.agreement:.1f} [{low:.0f}, {high:.0f}]", point.name,
        )  # fmt: skip
    output.print(table)
    output.print(
        f"Milliseconds are the compiler's estimate, not a board's. {found.ended}", soft_wrap=True
    )


@contextmanager
def _elsewhere(sources: Sources, exploration: Exploration) -> Iterator[TrialWorkers | None]:
    """Open the workers that are to make the trials; None is this process."""
    if not exploration.where.is_given:
        yield None
        return
    spec = ToolchainBenchSpec(sources.absolute(), exploration.level, exploration.jobs)
    with exploration.where.open() as workers:
        yield TrialWorkers(workers, spec)


@contextmanager
def _trials(
    inputs: Inputs,
    exploration: Exploration,
    elsewhere: TrialWorkers | None,
    total: int,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[Trials, Callable[[int], None]]]:
    """Make trials with a bar that shows what is tried; the second value sets how much is done."""
    bench = ToolchainBench(inputs, exploration.level, exploration.jobs, should_stop)
    with Progress(
        BarColumn(), TextColumn("{task.completed:.0f} of {task.total:.0f}"), TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False), console=messages,
        disable=not messages.is_terminal,
    ) as progress:  # fmt: skip
        task: TaskID = progress.add_task("", total=total)
        fixed: list[int] = []

        def on_progress(text: str, share: float) -> None:
            done = fixed[-1] if fixed else min(trials.finished, total)
            progress.update(task, completed=done, description=text)

        def done(count: int) -> None:
            fixed.append(count)
            progress.update(task, completed=count)

        trials = Trials(
            bench, exploration.state, parallel=exploration.parallel, elsewhere=elsewhere,
            on_progress=on_progress, should_stop=should_stop,
        )  # fmt: skip
        yield trials, done


def _about(inputs: Inputs, exploration: Exploration) -> dict[str, Any]:
    return {
        "model": inputs.source.name,
        "model_sha256": inputs.source.model.file.sha256,
        "untrained": inputs.source.model.file.untrained,
        "recipes": [each.name for each in exploration.recipes],
        "level": exploration.level,
        "calibration_images": len(inputs.images.calibration),
        "evaluation_images": len(inputs.evaluation),
        "image_seed": inputs.images.seed,
        "toolchain": toolchain_versions(),
    }


def _write_json(path: Path, document: dict[str, Any]) -> None:
    with open_atomic(path) as file:
        json.dump(document, file, indent=2)
        file.write("\n")
    output.print(f"wrote {path}", soft_wrap=True)


def _plot(path: Path, write: Callable[[Path], None]) -> None:
    try:
        matplotlib()
    except Efv2Error:
        return  # it was said before
    write(path)
    output.print(f"wrote {path}", soft_wrap=True)
