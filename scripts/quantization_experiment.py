#!/usr/bin/env python3
"""Measure what each option of a quantisation does, and write the table and plot of the documents.

usage: scripts/env -- python scripts/quantization_experiment.py --calib DIR [--size S]

From the Model Zoo's recipe to this package's, an option at a time. The network has random weights
of seed 0, as `efv2 models build` makes them. Results are kept in the user's cache, so that
the same command goes on after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from efv2_ros.errors import Efv2Error
from efv2_ros.figures import matplotlib, save
from efv2_ros.quantize.prepare import open_size
from efv2_ros.quantize.recipe import find_recipe
from efv2_ros.quantize.trials import Cost, Named, Outcome, Score, ToolchainBench, Trials
from efv2_ros.quantize.variants import with_calibration
from efv2_ros.signals import catch_stop
from efv2_ros.toolchain.environment import Stopped

ROOT = Path(__file__).resolve().parents[1]
SEED = 0
PLOT = ROOT / "docs" / "quantization_experiment.png"
BEGIN, END = "<!-- experiment -->\n", "<!-- end of experiment -->\n"
DOCUMENTS = {
    ROOT / "docs" / "quantization.md": ("recipe", "ms", "cosine", "least", "agreement"),
    ROOT / "docs" / "quantization_cn.md": (
        "配方",
        "毫秒",
        "余弦均值",
        "余弦最小值",
        "top-1 一致率",
    ),
}
"""Documents with the table, and its headings."""


def main() -> int:
    """Measure, and write the documents."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--calib", type=Path, required=True, metavar="DIR", help="images, or a bag"
    )
    parser.add_argument("--size", choices=("s0", "s1", "s2"), default="s0")
    parser.add_argument("--images", type=int, default=60, help="images to calibrate with")
    parser.add_argument("--eval-images", type=int, default=40, help="images to compare with")
    options = parser.parse_args()
    recipes = list(variants(options.size))
    with (
        catch_stop() as should_stop,
        open_size(
            options.size, options.calib, count=options.images, held_out=options.eval_images,
            seed=SEED, should_stop=should_stop,
        ) as inputs,
    ):  # fmt: skip
        bench = ToolchainBench(inputs, should_stop=should_stop)
        trials = Trials(bench, on_progress=show, should_stop=should_stop)
        costs = measured_costs(trials, recipes)
        scores = trials.scores(recipes)
    write_documents(recipes, scores, costs)
    draw(recipes, scores, costs)
    return 0


def variants(size: str) -> Iterator[Named]:
    """The recipes in the order of the story, and what the table calls them."""
    zoo = replace(find_recipe(f"zoo_{size}").for_size(size), sizes={})
    narrow = replace(find_recipe("plain").for_size(size), sizes={})
    name = f"zoo_{size}"
    if zoo.all_int16:
        name += ": int16"
    yield f"{name}, `max` {zoo.calibration.percentile:g}", zoo
    yield f"{name}, `max` 1.0", with_calibration(zoo, percentile=1.0)
    for percentile in (0.999, 0.9999, 1.0):
        changed = with_calibration(narrow, type="max", percentile=percentile)
        yield f"int8, `max` {percentile}", changed
    for kind in ("kl", "mix", "mse"):
        yield f"int8, `{kind}`", with_calibration(narrow, type=kind)
    rounded = replace(with_calibration(narrow, type="mse"), rounding="gptq")
    yield "int8, `mse`, `gptq`", rounded
    fast = replace(find_recipe("fast").for_size(size), sizes={})
    yield (
        "all rewrites, int8, `max` 0.9999",
        replace(with_calibration(fast, type="max", percentile=0.9999), rounding="nearest"),
    )
    yield "`fast`: all rewrites, `mse`, `gptq`", fast
    accurate = replace(find_recipe("accurate").for_size(size), sizes={})
    yield "`accurate`", accurate


def measured_costs(trials: Trials, recipes: Sequence[Named]) -> list[Outcome[Cost]]:
    """Compile one recipe of each structure: ranges and rounding change no latency."""
    known: dict[object, Outcome[Cost]] = {}
    found = []
    for named in recipes:
        structure = replace(named[1], calibration=recipes[0][1].calibration, rounding="nearest",
                            name="", description="")  # fmt: skip
        if structure not in known:
            (known[structure],) = trials.costs([named])
        found.append(known[structure])
    return found


def show(step: str, share: float) -> None:
    """Print the progress in place."""
    print(f"\r{step[:70]:70} {share:4.0%}", end="", file=sys.stderr, flush=True)


def table(
    headings: Sequence[str],
    recipes: Sequence[Named],
    scores: Sequence[Outcome[Score]],
    costs: Sequence[Outcome[Cost]],
) -> str:
    """Make the table of the documents."""
    lines = [f"| {' | '.join(headings)} |", f"| --- |{' ---: |' * (len(headings) - 1)}"]
    for (name, _), score, cost in zip(recipes, scores, costs, strict=True):
        cells = [name, f"{cost.value.milliseconds:.2f}" if cost.value else cost.problem]
        if score.value is not None:
            low, high = (100 * each for each in score.value.agreement_interval)
            cells += [f"{score.value.cosine:.4f}", f"{score.value.worst:.4f}",
                      f"{100 * score.value.agreement:.1f} % [{low:.0f}, {high:.0f}]"]  # fmt: skip
        else:
            cells += [score.problem, "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_documents(
    recipes: Sequence[Named], scores: Sequence[Outcome[Score]], costs: Sequence[Outcome[Cost]]
) -> None:
    """Write the table into the documents."""
    for path, headings in DOCUMENTS.items():
        before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise Efv2Error(f"{path} has no place for the table: {BEGIN.strip()}")
        made = table(headings, recipes, scores, costs)
        path.write_text(before + begin + made + end + after, encoding="utf-8")
        print(f"\n{path.relative_to(ROOT)} written")


def draw(
    recipes: Sequence[Named], scores: Sequence[Outcome[Score]], costs: Sequence[Outcome[Cost]]
) -> None:
    """Draw what each recipe loses, 1 minus the cosine, with its latency."""
    figure = matplotlib().figure.Figure(figsize=(9.0, 5.5), layout="constrained")
    axes = figure.subplots()
    rows = [
        (name.replace("`", ""), cost.value.milliseconds, 1 - score.value.cosine)
        for (name, _), score, cost in zip(recipes, scores, costs, strict=True)
        if score.value is not None and cost.value is not None
    ][::-1]
    axes.barh(range(len(rows)), [each[2] for each in rows], color="#1f77b4")
    axes.set_yticks(range(len(rows)), [each[0] for each in rows])
    for place, (_, milliseconds, lost) in enumerate(rows):
        axes.annotate(f" {milliseconds:.2f} ms", (lost, place), va="center", fontsize="small")
    axes.set_xscale("log")
    axes.set_xlabel("lost: 1 - mean cosine of the logits (less is better); time by the compiler's "
                    "estimate")  # fmt: skip
    axes.margins(x=0.15)
    axes.grid(axis="x", alpha=0.3)
    save(figure, PLOT)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stopped:
        sys.exit("interrupted")
    except Efv2Error as error:
        sys.exit(str(error))
