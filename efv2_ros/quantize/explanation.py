"""A recipe explained line by line: what each field does."""

from __future__ import annotations

from efv2_ros.quantize.recipe import Recipe, Rule, describe_rule
from efv2_ros.rewrites import REWRITES

_TYPES = {
    "max": "A tensor's range is the largest value that the calibration images make it hold",
    "mse": "A tensor's range is the one whose rounding and clipping err least, squared; what a "
    "Softmax computes gets a range of its own too",
    "kl": "A tensor's range is the one whose histogram of 8 bits differs least from the values'",
    "mix": "Several ways to find ranges are tried, and each tensor keeps the one that fits best",
    "default": "The toolchain tries several ways to find ranges and keeps the best for the model",
}

_FLAGS = {
    "per_channel": "Each channel of an activation has a range of its own",
    "asymmetric": "A range may lie unequally about zero; for the RDK X5, the toolchain takes the "
    "wish and changes nothing",
    "bias_correction": "Biases are changed to make up for the mean error of rounded weights",
}


def explain(recipe: Recipe) -> list[tuple[str, str]]:
    """Explain a recipe.

    Returns:
        Each line of the recipe, and a sentence on what it does.
    """
    lines: list[tuple[str, str]] = []
    lines += [(f"rewrites: {name}", REWRITES[name].description) for name in recipe.rewrites]
    if not recipe.rewrites:
        lines.append(("rewrites: none", "The graph is compiled as it was exported."))
    calibration = recipe.calibration
    sentence = f"{_TYPES[calibration.type]}."
    lines.append((f"calibration.type: {calibration.type}", sentence))
    if calibration.percentile is not None:
        lines.append((f"calibration.percentile: {calibration.percentile:g}", _percentile(recipe)))
    lines += [
        (f"calibration.{name}: true", f"{text}.")
        for name, text in _FLAGS.items()
        if getattr(calibration, name)
    ]
    if recipe.rounding == "gptq":
        lines.append(
            ("weights.rounding: gptq",
             "Weights are rounded so that the outputs of their layers change least for the "
             "calibration images, which takes a while and costs the board nothing.")
        )  # fmt: skip
    if recipe.all_int16:
        lines.append(
            ("all_int16: true",
             "All activations have 16 bits: more exact, and about twice the time and traffic; "
             "weights stay at 8.")
        )  # fmt: skip
    lines += [(_rule_text(rule), _rule_sentence(rule)) for rule in recipe.nodes]
    what = "time" if recipe.mode == "latency" else "traffic to the memory"
    lines.append((f"compile.mode: {recipe.mode}", f"The compiler saves {what} first."))
    return lines


def _percentile(recipe: Recipe) -> str:
    share = recipe.calibration.percentile or 1.0
    if share == 1:
        return "No value is cut off."
    cut = (1 - share) * 1e6
    return (
        f"The largest {cut:,.0f} of a million values are cut off, so that the steps between the "
        "others are finer."
    )


def _rule_text(rule: Rule) -> str:
    parts = {"match": rule.match, "op": rule.op, "blocks": ", ".join(rule.blocks), "on": rule.on,
             "input": rule.input, "output": rule.output}  # fmt: skip
    return "nodes: " + ", ".join(f"{key}: {value}" for key, value in parts.items() if value)


def _rule_sentence(rule: Rule) -> str:
    nodes = describe_rule(rule)
    parts = []
    if rule.on:
        parts.append(f"run on the {rule.on}")
    widths = {"read": rule.input, "write": rule.output}
    if rule.input and rule.input == rule.output:
        parts.append(f"read and write {rule.input}")
    else:
        parts += [f"{verb} {width}" for verb, width in widths.items() if width]
    return f"{nodes[0].upper()}{nodes[1:]} {' and '.join(parts)}."
