#!/usr/bin/env python3
"""Measure what each shipped recipe brings for each size, and write the tables of it.

usage: scripts/env -- python scripts/recipe_estimates.py --calib DIR [--size S] [--recipe NAME]
       scripts/env -- python scripts/recipe_estimates.py [--check]

Without --calib only the tables are written anew, from models/recipes/estimates.json. With --check
nothing is written, and the exit status is 1 if a table or a figure is out of date.

Without --model the networks have random weights of seed 0, as `efv2 models build` makes them.
Figures that are still true are kept; --all measures them again. Each is written as soon as it is
known, so that Ctrl-C loses only the one at work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from efv2_ros import __version__
from efv2_ros.errors import Efv2Error
from efv2_ros.quantize.build import build, make_plan, toolchain_versions
from efv2_ros.quantize.estimates import (
    FILE,
    Entry,
    markdown,
    read_estimates,
    recipe_digest,
    rows,
    shipped_recipes,
    suits,
    write_estimates,
)
from efv2_ros.quantize.fidelity import measure
from efv2_ros.quantize.prepare import Inputs, open_size
from efv2_ros.quantize.proof import failed, prove
from efv2_ros.quantize.recipe import Recipe
from efv2_ros.signals import catch_stop
from efv2_ros.toolchain.environment import Stopped

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.joinpath(*FILE)
SIZES = ("s0", "s1", "s2")
SEED = 0

BEGIN, END = "<!-- estimates -->\n", "<!-- end of estimates -->\n"
"""What stands around the table in a document."""

DOCUMENTS = {
    ROOT / "docs" / "quantization.md": (
        ("size", "recipe", "ms", "FPS", "DDR MB", "cosine", "least", "agreement", ""),
        {},
    ),
    ROOT / "docs" / "quantization_cn.md": (
        ("型号", "配方", "毫秒", "FPS", "DDR MB", "余弦均值", "余弦最小值", "top-1 一致率", ""),
        {"not measured": "未测", "the recipe was changed since": "配方此后有改动"},
    ),
}
"""Documents with the table: its headings, and translations of its notes."""


def main() -> int:
    """Measure, or only write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calib", type=Path, metavar="DIR", help="images, or a bag")
    parser.add_argument("--size", action="append", choices=SIZES, help="default: all")
    parser.add_argument("--recipe", action="append", metavar="NAME", help="default: all")
    parser.add_argument("--images", type=int, default=60, help="images to calibrate with")
    parser.add_argument("--eval-images", type=int, default=40, help="images to compare with")
    parser.add_argument("--model", action="append", default=[], metavar="SIZE=FILE.onnx",
                        help="a trained network")  # fmt: skip
    parser.add_argument("--opt", choices=("O0", "O1", "O2", "O3"), default="O2")
    parser.add_argument("--all", action="store_true", help="measure what is known, too")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    recipes = [each for each in shipped_recipes()
               if options.recipe is None or each.name in options.recipe]  # fmt: skip
    if options.calib is not None and not options.check:
        with catch_stop() as should_stop:
            for size in options.size or SIZES:
                measure_size(size, recipes, options, should_stop)
    return write_tables(check=options.check)


def measure_size(
    size: str,
    recipes: list[Recipe],
    options: argparse.Namespace,
    should_stop: Callable[[], bool],
) -> None:
    """Measure all recipes for a size, and write each one's figures."""
    known = {(each.size, each.recipe): each for each in read_estimates(DATA)}
    wanted = [
        each for each in recipes
        if suits(each.name, size) and (options.all or not is_true(known, each, size, options.opt))
    ]  # fmt: skip
    if not wanted:
        return
    models = dict(each.split("=", 1) for each in options.model)
    model = Path(models[size]) if size in models else None
    with open_size(
        size, options.calib, model, count=options.images, held_out=options.eval_images, seed=SEED,
        should_stop=should_stop,
    ) as inputs:  # fmt: skip
        weights = "trained" if model else f"random, seed {SEED}"
        for recipe in wanted:
            entry = measured(inputs, recipe, size, options.opt, weights, should_stop)
            known[size, recipe.name] = entry
            write_estimates(known.values(), DATA)
            print(f"{size} {recipe.name}: {entry.milliseconds:.2f} ms, cosine "
                  f"{entry.cosine_mean:.4f}", flush=True)  # fmt: skip


def is_true(known: dict[tuple[str, str], Entry], recipe: Recipe, size: str, level: str) -> bool:
    """Whether a recipe's figures are there and those of the recipe as it is."""
    entry = known.get((size, recipe.name))
    return (
        entry is not None
        and entry.recipe_digest == recipe_digest(recipe, size)
        and entry.level == level
    )


def measured(
    inputs: Inputs,
    recipe: Recipe,
    size: str,
    level: str,
    weights: str,
    should_stop: Callable[[], bool],
) -> Entry:
    """Compile with a recipe, and compare with the float model."""
    plan = make_plan(inputs, recipe, level)  # type: ignore[arg-type]
    built = build(inputs, plan, should_stop=should_stop)
    for claim in failed(prove(built)):
        print(f"{size} {recipe.name}: {claim.text}", flush=True)
    fidelity, estimate = measure(inputs, built, should_stop=should_stop), built.result.estimate
    if fidelity is None or estimate is None:
        raise Efv2Error("there are no images to compare the models with")
    return Entry(
        size=size,
        recipe=recipe.name,
        recipe_digest=recipe_digest(recipe, size),
        level=level,
        milliseconds=round(estimate.milliseconds, 4),
        fps=round(estimate.fps, 2),
        ddr_bytes=estimate.ddr_bytes,
        cosine_mean=round(float(fidelity.cosines.mean()), 6),
        cosine_min=round(float(fidelity.cosines.min()), 6),
        agreement=round(fidelity.agreed / fidelity.images, 6),
        agreement_low=round(fidelity.agreement.low, 6),
        agreement_high=round(fidelity.agreement.high, 6),
        images=fidelity.images,
        calibration_images=len(inputs.images.calibration),
        weights=weights,
        model_sha256=inputs.source.model.file.sha256,
        made_by=__version__,
        toolchain=dict(sorted(toolchain_versions().items())),
    )


def write_tables(*, check: bool) -> int:
    """Bring the tables of the documents up to date; return the exit status."""
    found = rows(read_estimates(DATA), shipped_recipes(), SIZES)
    status = 0
    for row in found:
        if row.note:
            print(f"{row.size} {row.recipe}: {row.note}")
            status = 1
    for path, (headings, notes) in DOCUMENTS.items():
        if not path.is_file():
            continue
        present = path.read_text(encoding="utf-8")
        before, begin, rest = present.partition(BEGIN)
        _, end, after = rest.partition(END)
        wanted = present
        if begin and end:
            wanted = before + begin + markdown(found, headings, notes) + end + after
        if wanted != present:
            print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
            status = 1 if check else status
            if not check:
                path.write_text(wanted, encoding="utf-8")
    return status if check else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stopped:
        sys.exit("interrupted")
    except Efv2Error as error:
        sys.exit(str(error))
