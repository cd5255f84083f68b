"""Recipes tried by formulas in the place of the compiler: each choice costs and gains its own."""

import hashlib
import json
from dataclasses import replace

from efv2_ros.quantize.trials import Cost, Score
from efv2_ros.quantize.variants import has_residual, wide_groups
from efv2_ros.toolchain.environment import Stopped, ToolchainError
from efv2_ros.toolchain.protocol import Layer

NOISE = {"stem": 0.004, "stages.0.blocks.0": 0.001, "stages.0.blocks.1": 0.002,
         "stages.0.blocks.2": 0.0002, "stages.0.blocks.3": 0.003, "head": 0.0}  # fmt: skip
"""Cosine that 8 bits in a part lose."""

PRICE = {"stem": 0.1, "stages.0.blocks.0": 0.2, "stages.0.blocks.1": 0.1,
         "stages.0.blocks.2": 0.4, "stages.0.blocks.3": 1.0, "head": 0.3}  # fmt: skip
"""Milliseconds that 16 bits in a part cost."""

RANGES = {0.999: 0.004, 0.9995: 0.002, 0.9999: 0.001, 0.99995: 0.0005, 0.99999: 0.002, 1.0: 0.01}
KINDS = {"mse": 0.0015, "mix": 0.003}
IMAGES = 20


class AnalyticBench:
    """Args: space: of the model. Attributes: asked: every trial that was made, by its kind."""

    def __init__(self, space, fails=lambda recipe: False, stops_after=None):
        self.space, self.fails, self.stops_after = space, fails, stops_after
        self.asked = {"score": [], "cost": []}

    def key(self, recipe, kind):
        fields = replace(recipe, description="").as_dict()
        return hashlib.sha256(json.dumps([kind, fields], sort_keys=True).encode()).hexdigest()

    def score(self, recipe, on_progress):
        self._ask(recipe, "score", on_progress)
        cosine = self.cosine(recipe)
        spread = [(number - (IMAGES - 1) / 2) * 1e-5 for number in range(IMAGES)]
        lost = round((1 - cosine) * 500)
        agreed = tuple(number >= lost for number in range(IMAGES))
        return Score(tuple(cosine + each for each in spread), agreed)

    def cost(self, recipe, on_progress):
        self._ask(recipe, "cost", on_progress)
        wide = wide_groups(recipe, self.space.parts(recipe))
        layers = tuple(
            Layer(
                name=f"{nodes[0]}_part", kind="Conv", waits_for="compute", ddr_bytes=1000,
                microseconds=1000 * PRICE[group] * (2 if group in wide else 1),
            )
            for group, nodes in self.space.parts(recipe).groups.items()
        )  # fmt: skip
        milliseconds = self.milliseconds(recipe)
        return Cost(milliseconds, 1000 / milliseconds, 1_000_000, "O2", layers)

    def _ask(self, recipe, kind, on_progress):
        done = sum(map(len, self.asked.values()))
        if self.stops_after is not None and done >= self.stops_after:
            raise Stopped
        on_progress("working", 0.5)
        if self.fails(recipe):
            raise ToolchainError("the compiler failed; its log /gone ends with: no")
        self.asked[kind].append(self.key(recipe, kind))

    def cosine(self, recipe):
        parts = self.space.parts(recipe)
        wide = wide_groups(recipe, parts)
        calibration = recipe.calibration
        lost = sum(value for group, value in NOISE.items() if group not in wide)
        lost += KINDS.get(calibration.type) or RANGES[calibration.percentile]
        lost += 0.0003 if calibration.asymmetric else 0.0
        lost += 0.0 if has_residual(recipe, parts) else 0.001
        lost += 0.0 if self.softmax(recipe) == "int16" else 0.0004
        return 1 - lost

    def milliseconds(self, recipe):
        parts = self.space.parts(recipe)
        wide = wide_groups(recipe, parts)
        time = 2.0 + sum(PRICE[group] for group in sorted(wide))
        time += 0.5 if has_residual(recipe, parts) else 0.0
        return time + (0.05 if self.softmax(recipe) == "int16" else 0.0)

    def softmax(self, recipe):
        rules = [rule for rule in recipe.nodes if rule.op == "Softmax" and rule.input]
        return rules[-1].input if rules else "int8"
