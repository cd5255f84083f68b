"""The search: its front, its budget, going on where it was interrupted, the choice of a recipe."""

import itertools
import json

import pytest

pytest.importorskip("onnx")
from analytic_bench import NOISE, RANGES, AnalyticBench
from small_network import small_network

from efv2_ros.quantize import front as front_file
from efv2_ros.quantize import plots
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.front import choose, pareto
from efv2_ros.quantize.recipe import Calibration, Recipe, Rule, read_recipe
from efv2_ros.quantize.search import Budget, search
from efv2_ros.quantize.space import Space
from efv2_ros.quantize.trials import Trials
from efv2_ros.quantize.variants import (
    summary,
    wide_groups,
    with_calibration,
    with_residual,
    with_softmax,
    with_wide,
)
from efv2_ros.toolchain.environment import Stopped

PLAIN = Recipe("plain", calibration=Calibration(percentile=0.9999))
ALL_INT16 = Recipe("wide", calibration=Calibration(percentile=0.999), all_int16=True)


@pytest.fixture
def space():
    return Space(small_network())


def found_by(bench, folder, points=120, seed=0, starts=(PLAIN, ALL_INT16), **options):
    trials = Trials(bench, folder)
    return search(trials, bench.space, starts, Budget(points), seed=seed, **options)


def all_figures(space, bench):
    """Milliseconds and cosine of each recipe of the space."""
    parts = space.parts(PLAIN)
    groups = list(parts.groups)
    for size in range(len(groups) + 1):
        for wide in itertools.combinations(groups, size):
            for width, residual, range_ in itertools.product(
                ("int8", "int16"), (False, True), RANGES
            ):
                recipe = with_wide(PLAIN, parts, wide)
                recipe = with_residual(with_softmax(recipe, width), parts, residual)
                recipe = with_calibration(recipe, percentile=range_)
                yield bench.milliseconds(recipe), bench.cosine(recipe)


def test_the_front_is_that_of_all_recipes(space, tmp_path):
    bench = AnalyticBench(space)
    found = found_by(bench, tmp_path)
    assert found.front == pareto(found.points)
    figures = [each.figures for each in found.front]
    assert figures == sorted(figures)
    assert [each[1] for each in figures] == sorted(each[1] for each in figures)
    for milliseconds, cosine in all_figures(space, bench):
        best = max((each[1] for each in figures if each[0] <= milliseconds + 1e-9), default=0)
        assert best >= cosine - 0.0011, (milliseconds, cosine)
    fastest, best = found.front[0], found.front[-1]
    assert fastest.figures[0] == pytest.approx(2.0)
    assert best.score.cosine == pytest.approx(1 - 0.0005, abs=2e-4)
    assert "stem" in wide_groups(found.front[-1].recipe, space.parts(best.recipe))


def test_what_is_beaten_is_not_compiled(space, tmp_path):
    bench = AnalyticBench(space)
    found = found_by(bench, tmp_path)
    assert len(bench.asked["score"]) == len(found.points) == 120
    assert len(bench.asked["cost"]) < len(found.points) / 2
    beaten = [each for each in found.points if each.recipe.calibration.percentile == 1.0]
    assert beaten
    assert all(each.cost is None for each in beaten)


def test_nothing_is_tried_twice(space, tmp_path):
    bench = AnalyticBench(space)
    first = found_by(bench, tmp_path)
    for asked in bench.asked.values():
        assert len(set(asked)) == len(asked)
    again = AnalyticBench(space)
    assert found_by(again, tmp_path) == first
    assert again.asked == {"score": [], "cost": []}


@pytest.mark.parametrize("after", [1, 7, 30, 90])
def test_an_interrupted_search_goes_on(space, tmp_path, after):
    whole = AnalyticBench(space)
    expected = found_by(whole, tmp_path / "whole")
    stopped = AnalyticBench(space, stops_after=after)
    with pytest.raises(Stopped):
        found_by(stopped, tmp_path / "state")
    rest = AnalyticBench(space)
    assert found_by(rest, tmp_path / "state") == expected
    for kind, asked in whole.asked.items():
        assert stopped.asked[kind] + rest.asked[kind] == asked


def test_a_damaged_file_is_tried_again(space, tmp_path):
    expected = found_by(AnalyticBench(space), tmp_path, points=10)
    files = sorted(tmp_path.iterdir())
    assert all(each.suffix == ".json" for each in files)
    files[0].write_text("{", encoding="utf-8")
    files[-1].write_text('{"result": {"cosines": "x"}}', encoding="utf-8")
    bench = AnalyticBench(space)
    assert found_by(bench, tmp_path, points=10) == expected
    assert sum(map(len, bench.asked.values())) == 2


def test_the_seed_makes_the_search(space, tmp_path):
    one = found_by(AnalyticBench(space), tmp_path / "1", seed=1)
    assert found_by(AnalyticBench(space), tmp_path / "2", seed=1) == one
    other = found_by(AnalyticBench(space), tmp_path / "3", seed=2)
    assert [each.key for each in other.points] != [each.key for each in one.points]


def test_several_at_once_find_the_same(space, tmp_path):
    one = found_by(AnalyticBench(space), tmp_path / "1", points=60)
    trials = Trials(AnalyticBench(space), tmp_path / "2", parallel=4)
    assert search(trials, space, (PLAIN, ALL_INT16), Budget(60)) == one


def test_the_budget_of_recipes(space, tmp_path):
    seen = []
    found = found_by(
        AnalyticBench(space), tmp_path, points=9, on_point=lambda *each: seen.append(each)
    )
    assert len(found.points) == 9
    assert [number for _, number in seen] == list(range(1, 10))
    assert found.ended == "The budget of 9 recipes is spent."


def test_the_budget_of_time(space, tmp_path):
    seconds = itertools.count(step=10)
    trials = Trials(AnalyticBench(space), tmp_path)
    budget = Budget(1000, seconds=300)
    found = search(trials, space, [PLAIN], budget, clock=lambda: next(seconds))
    assert found.ended == "The budget of 5 minutes is spent."
    assert 5 < len(found.points) < 60
    assert found.front


def test_a_recipe_that_fails_is_left_out(space, tmp_path):
    def fails(recipe):
        return "stem" in wide_groups(recipe, space.parts(recipe))

    found = found_by(AnalyticBench(space, fails), tmp_path)
    failed = [each for each in found.points if each.problem]
    assert failed
    assert {each.problem for each in failed} == {"the compiler failed"}
    assert not any(fails(each.recipe) for each in found.front)
    assert len(found.front) > 3


def test_a_search_that_cannot_begin_says_why(space, tmp_path):
    with pytest.raises(QuantizeError, match="no recipe could be tried: the compiler failed"):
        found_by(AnalyticBench(space, lambda recipe: True), tmp_path)


def test_a_recipe_that_does_not_fit_the_model_is_refused(space, tmp_path):
    wrong = Recipe("wrong", nodes=(Rule(match="nothing", on="BPU"),))

    class Bench(AnalyticBench):
        def key(self, recipe, kind):
            recipe.rules(small_network())
            return super().key(recipe, kind)

    with pytest.raises(QuantizeError, match=r"recipe wrong, nodes\.0: no node"):
        found_by(Bench(space), tmp_path, starts=(PLAIN, wrong))


def test_the_choice(space, tmp_path):
    front = found_by(AnalyticBench(space), tmp_path).front
    for budget in (2.0, 2.3, 3.0, 99.0):
        chosen = choose(front, budget_ms=budget)
        assert chosen.figures[0] <= budget
        fitting = [each.figures[1] for each in front if each.figures[0] <= budget]
        assert chosen.figures[1] == max(fitting)
    for drop in (0.25, 0.1, 0.05):
        chosen = choose(front, max_drop=drop)
        assert chosen.score.drop <= drop
        keeping = [each.figures[0] for each in front if each.score.drop <= drop]
        assert chosen.figures[0] == min(keeping)
    both = choose(front, budget_ms=2.5, max_drop=0.2)
    assert both.figures[0] <= 2.5
    assert both.score.drop <= 0.2
    with pytest.raises(QuantizeError, match=r"at most 1 ms: the fastest takes 2\.00 ms"):
        choose(front, budget_ms=1)
    with pytest.raises(QuantizeError, match="at most 0 points of top-1: the best loses"):
        choose(front, budget_ms=2.0, max_drop=0)
    with pytest.raises(QuantizeError, match="no choice"):
        choose([], budget_ms=2)


def test_the_front_as_files(space, tmp_path):
    found = found_by(AnalyticBench(space), tmp_path / "state", points=60)
    chosen = choose(found.front, budget_ms=2.6)
    document = front_file.as_dict(found, {"model": "small"}, chosen)
    document = json.loads(json.dumps(document))
    assert document["chosen"] == chosen.key
    assert [each["milliseconds"] for each in document["front"]] == [
        each.figures[0] for each in found.front
    ]
    assert len(document["front"]) + len(document["others"]) == 60
    assert document["front"][0]["slowest_layers"][0]["microseconds"] > 0

    path = tmp_path / "chosen.yaml"
    front_file.write_recipe(chosen.recipe, front_file.describe(chosen), path)
    again = read_recipe(path)
    model = small_network()
    assert again.rules(model) == chosen.recipe.rules(model)
    assert again.calibration == chosen.recipe.calibration
    assert f"{chosen.figures[0]:.2f} ms by the compiler's estimate" in again.description

    pytest.importorskip("matplotlib")
    plots.write_front(found, "small", chosen, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_names_say_what_a_recipe_does(space):
    parts = space.parts(PLAIN)
    recipe = with_softmax(with_wide(PLAIN, parts, ["stem", "head"]), "int16")
    recipe = with_residual(recipe, parts, True)
    assert summary(recipe, parts) == (
        "0 rewrites, max 0.9999, Softmax int16, residual int16, int16 on stem, head"
    )
    assert summary(with_wide(PLAIN, parts, NOISE), parts).endswith("all int16")


def test_the_command(quantize, compiler, tmp_path):
    out, state = tmp_path / "out", tmp_path / "state"
    words = ("--search", "--budget-points", "6", "--state", state)
    made = quantize(*words, "--budget-ms", "99")
    assert made.exit_code == 0, made.output
    document = json.loads((out / "front.json").read_text())
    assert document["model"] == "cnn"
    assert len(document["front"]) + len(document["others"]) == 6
    assert document["chosen"]
    assert "6 of 6: " in made.stderr
    assert "the compiler's estimate, not a board's" in made.stdout
    assert read_recipe(out / "chosen.yaml").rewrites is not None
    asked = len(compiler.requests)
    assert any(each.quantize_only for each in compiler.requests)

    again = quantize(*words, "--budget-ms", "0.001", "--no-cache")
    assert again.exit_code == 1
    assert "no recipe takes at most 0.001 ms" in again.stderr
    assert len(compiler.requests) == asked


def test_wrong_words(quantize, compiler):
    for words, message in (
        (("--search", "--explain"), "--explain and --search are two commands"),
        (("--explain", "--recipe", "fast"), "--explain is for one recipe"),
        (("--search", "--eval-images", "0"), "there are no images to compare the models with"),
        (("--search", "--state", "/proc/none"), "cannot keep trials in /proc/none"),
        (("--search", "--out", "/none/out"), "cannot make /none/out"),
    ):
        made = quantize(*words)
        assert made.exit_code != 0
        assert message in made.stderr
    assert not compiler.requests
