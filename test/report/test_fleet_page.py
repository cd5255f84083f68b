"""The pages that `efv2 report` makes of many runs."""

import html
import json
import os
import random
import re
import shutil
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from bag_maker import PERIOD, START, image, make
from browser import Browser
from click.testing import CliRunner
from contrast import check_contrast
from tiny_models import projection

from efv2_ros.classify.postprocess import Prediction
from efv2_ros.cli.main import main
from efv2_ros.replay.run import FrameResult, Run, read_jsonl, save_jsonl
from efv2_ros.report.disagreement import EXAMPLES, compare_models
from efv2_ros.report.sources import find_runs
from efv2_ros.report.summary import group_by_bag, summarize_run
from efv2_ros.vision.frame import Header

NAMES = {1: "cat", 2: "cup", 3: "key", 4: "sun"}
SCRIPT = "<script>document.title = 'hacked'<"
WIDE, NARROW = 1280, 390
BAGS, MOST_BARS = 25, 40


def at(number):
    return Header(*divmod(START + number * PERIOD, 10**9), "camera")


def frame(number, class_id, score=0.9, **timings):
    return FrameResult(at(number), Prediction((class_id,), (score,)), milliseconds=timings)


def dropped(number, cause="decode"):
    return FrameResult(at(number), dropped=cause)


def run(frames, bag="bags/drive", model="s0", **info):
    info = {"bag": bag, "topic": "/image", "model": model, "runtime": "onnx", **info}
    return Run(info, NAMES, list(frames))


def save(run, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_jsonl(run, path, timings=True)
    return path


def summaries_of(*paths):
    return [summarize_run(read_jsonl(each.path), each) for each in find_runs(paths).runs]


def compared(*paths):
    return compare_models(summaries_of(*paths), lambda source: read_jsonl(source.path))


# The figures


def test_figures_of_a_run(tmp_path):
    chance = np.random.default_rng(1)
    scores = chance.uniform(0, 1, 200)
    frames = [
        frame(
            number, 1, score, read=50.0, wait=9.0, convert=0.5, infer=number / 10, end_to_end=99.0
        )
        for number, score in enumerate(scores.tolist())
    ]
    frames += [dropped(200), dropped(201, "late"), dropped(202)]
    frames.append(FrameResult(at(203), Prediction((), ())))
    save(run(frames, problems=["a chunk is cut"]), tmp_path / "drive.jsonl")
    (found,) = summaries_of(tmp_path)
    assert (found.bag, found.topic, found.model) == ("bags/drive", "/image", "s0 on onnx")
    assert (found.images, found.classified, found.drops) == (204, 201, {"decode": 2, "late": 1})
    assert found.low_scores == (scores < 0.5).sum() + 1  # without a class there is no score
    assert found.mean_score == pytest.approx(scores.mean())
    assert found.latency == pytest.approx(np.percentile(0.5 + np.arange(200) / 10, (50, 95)))
    assert found.seconds == pytest.approx(203 * PERIOD / 1e9)
    assert found.problems == ("a chunk is cut",)
    assert found.unsure_share == pytest.approx((3 + found.low_scores) / 204)


def test_runs_without_images_and_durations(tmp_path):
    save(run([]), tmp_path / "a.jsonl")
    save(run([dropped(0)]), tmp_path / "b.jsonl")
    empty, nothing = summaries_of(tmp_path)
    assert (empty.images, empty.seconds, empty.unsure_share) == (0, 0.0, 0.0)
    assert nothing.unsure_share == 1.0
    assert np.isnan([empty.mean_score, *empty.latency, nothing.mean_score]).all()


def test_bags_of_the_same_name(tmp_path):
    for model in ("s0", "s1"):
        for day in ("monday", "tuesday"):
            save(run([], f"/data/{day}/drive", model), tmp_path / model / f"{day}.jsonl")
    save(run([], "/data/city", "s0"), tmp_path / "s0" / "city.jsonl")
    save(run([], "/moved/city", "s1"), tmp_path / "s1" / "city.jsonl")
    groups = group_by_bag(summaries_of(tmp_path / "s0", tmp_path / "s1"))
    assert [[(each.bag, each.model) for each in group] for group in groups] == [
        [("/data/city", "s0 on onnx"), ("/moved/city", "s1 on onnx")],
        [("/data/monday/drive", "s0 on onnx"), ("/data/monday/drive", "s1 on onnx")],
        [("/data/tuesday/drive", "s0 on onnx"), ("/data/tuesday/drive", "s1 on onnx")],
    ]


# Disagreement


def test_disagreement_is_counted_by_image_and_class(tmp_path):
    first = [frame(0, 1, 0.9), frame(1, 1, 0.8), frame(2, 2), dropped(3), frame(4, 3), frame(5, 3)]
    second = [frame(0, 2, 0.6), frame(1, 2, 0.7), frame(2, 2), frame(3, 4), dropped(4),
              FrameResult(at(5), Prediction((), ())), frame(6, 1)]  # fmt: skip
    save(run(first, model="s0"), tmp_path / "a" / "drive.jsonl")
    save(run(second, model="s1"), tmp_path / "b" / "drive.jsonl")
    (found,) = compared(tmp_path / "a", tmp_path / "b")
    assert (found.first, found.second, found.images) == ("s0 on onnx", "s1 on onnx", 4)
    assert found.pairs == {("cat", "cup"): 2, ("key", "no result above the threshold"): 1}
    assert found.bags[0].share == 3 / 4
    assert [(each.key.stamp, each.scores) for each in found.examples] == [
        (at(1).nanoseconds, (0.8, 0.7)),
        (at(5).nanoseconds, (0.9, 0.0)),
    ]


def test_classes_are_the_same_by_name(tmp_path):
    save(run([frame(0, 1), frame(1, 2)], model="s0"), tmp_path / "a.jsonl")
    other = run([frame(0, 7), frame(1, 1)], model="mine")
    other.labels = {7: "cat", 1: "cup of tea"}
    save(other, tmp_path / "b.jsonl")
    (found,) = compared(tmp_path)
    assert found.pairs == {("cup", "cup of tea"): 1}


def test_images_of_equal_stamps_are_matched_in_their_order(tmp_path):
    for model, classes in (("s0", (1, 2, 3)), ("s1", (1, 3, 3))):
        frames = [FrameResult(at(0), Prediction((each,), (0.9,))) for each in classes]
        save(run(frames, model=model), tmp_path / f"{model}.jsonl")
    (found,) = compared(tmp_path)
    assert (found.images, found.pairs) == (3, {("cup", "key"): 1})


def test_the_first_model_is_compared_with_each_other_one(tmp_path):
    for model, class_id in (("s2", 3), ("s0", 1), ("s1", 2)):
        save(run([frame(0, class_id)], model=model), tmp_path / model / "drive.jsonl")
    save(run([frame(0, 4)], model="s2"), tmp_path / "again" / "drive.jsonl")
    found = compared(*(tmp_path / each for each in ("s0", "s2", "again", "s1")))
    assert [(each.first, each.second, dict(each.pairs)) for each in found] == [
        ("s0 on onnx", "s2 on onnx", {("cat", "key"): 1}),
        ("s0 on onnx", "s1 on onnx", {("cat", "cup"): 1}),
    ]
    assert compared(tmp_path / "s0", tmp_path / "s0") == []


def test_examples_are_spread_over_bags_and_pairs(tmp_path):
    chance = np.random.default_rng(3)
    for bag in range(20):
        seen = {"s0": [], "s1": []}
        for number in range(300):
            sure = 1.0 if bag == 7 else 0.7
            for frames in seen.values():
                class_id = int(chance.integers(1, 5))
                frames.append(frame(number, class_id, float(chance.uniform(0.1, sure))))
        for model, frames in seen.items():
            save(run(frames, f"bags/{bag}", model), tmp_path / model / f"{bag}.jsonl")
    (found,) = compared(tmp_path / "s0", tmp_path / "s1")
    assert len(found.examples) == EXAMPLES
    assert len({each.summary for each in found.examples}) == 20
    assert len({each.pair for each in found.examples}) == 12  # all of four classes
    confidence = [each.confidence for each in found.examples]
    assert confidence == sorted(confidence, reverse=True)
    assert all(len(bag.examples) <= EXAMPLES for bag in found.bags)
    surest = max((e for bag in found.bags for e in bag.examples), key=lambda each: each.confidence)
    assert found.examples[0] == surest and surest.summary.source.name == "7"


# The command


@pytest.fixture
def efv2(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments, status=0):
        result = CliRunner().invoke(main, [str(each) for each in arguments])
        assert result.exit_code == status, result.output
        return result.output

    return call


def rows(page, title="All bags"):
    """The table with this title, as texts, without its heading."""
    table = re.search(f'aria-label="{title}">(.*?)</table>', page.read_text(), re.S)[1]
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>",
             table, re.S)]  # fmt: skip
    return [[html.unescape(re.sub("<.*?>", "", cell)) for cell in row] for row in found][1:]


def told(page):
    """What went wrong, as the page lists it."""
    found = re.findall("<li>(.*?)</li>", page.read_text().partition("The worst first")[0])
    return [html.unescape(re.sub("<.*?>", "", each)) for each in found]


def links(page):
    """The files that a page links to."""
    found = re.findall(r'<a href="(.*?)"', page.read_text())
    return {page.parent / os.fsdecode(unquote_to_bytes(html.unescape(each))) for each in found}


def test_a_folder_of_runs(efv2, tmp_path):
    save(run([frame(n, 1) for n in range(10)], "/no/good"), tmp_path / "runs" / "good.jsonl")
    save(run([frame(n, 1, 0.2) for n in range(9)] + [dropped(9)], "/no/bad"),
         tmp_path / "runs" / "bad.jsonl")  # fmt: skip
    save(run([dropped(0)] + [frame(n, 1, infer=4.0) for n in range(1, 5)], "/no/fair"),
         tmp_path / "runs" / "fair.jsonl")  # fmt: skip
    assert "wrote runs_report/index.html (3 runs, 25 images)" in efv2("report", "runs")
    page = Path("runs_report/index.html")
    assert rows(page) == [
        ["bad", "10", "10.0%", "90.0%", "20.0%", "", "", ""],
        ["fair", "5", "20.0%", "0.0%", "90.0%", "4.00", "4.00", ""],
        ["good", "10", "0.0%", "0.0%", "90.0%", "", "", ""],
    ]
    assert rows(page, "Dropped images") == [["decode", "2", "8.0%", "2"]]
    assert links(page) == {page.parent / f"{each}.html" for each in ("bad", "fair", "good")}
    assert "<h2>Classes</h2>" in (page.parent / "bad.html").read_text()
    text = page.read_text()
    assert "<dt>bags</dt><dd>3 " in text and "Disagreement" not in text
    assert "Failed and damaged" not in text
    # One run is a page of its own, wherever it is.
    assert "wrote runs/bad.html (10 images" in efv2("report", "runs/bad.jsonl")


def test_a_damaged_run_among_good_ones(efv2, tmp_path):
    for name in ("a", "b", "c"):
        save(run([frame(0, 1)], name), tmp_path / "runs" / f"{name}.jsonl")
    damaged = tmp_path / "runs" / "b.jsonl"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    said = efv2("report", "runs", "-o", "out", status=1)
    assert len([line for line in said.splitlines() if "line 2 of runs/b.jsonl" in line]) == 1
    page = Path("out/index.html")
    (line,) = told(page)
    assert line.startswith("b line 2 of runs/b.jsonl is not of a run")
    assert [row[0] for row in rows(page)] == ["a", "c"]
    assert not Path("out/b.html").exists() and all(each.is_file() for each in links(page))
    for name in ("a", "c"):
        Path(f"runs/{name}.jsonl").write_text("")
    efv2("report", "runs", "-o", "out", status=1)
    assert "No run could be read." in page.read_text() and len(told(page)) == 3


def test_the_summary_of_a_fleet(efv2, tmp_path):
    save(run([frame(0, 1)], "bags/a"), tmp_path / "runs" / "a.jsonl")
    summary = tmp_path / "runs" / "fleet.json"
    bags = [
        {"bag": "bags/a", "name": "a", "status": "done", "problems": ["the end is cut"]},
        {"bag": "s3://x/<b>", "name": "<b>", "status": "failed", "problems": ["no <file>"]},
    ]
    summary.write_text(json.dumps({"format": 1, "settings": {}, "bags": bags}))
    efv2("report", "runs")
    page = Path("runs_report/index.html")
    assert told(page) == ["<b> no <file>", "a the end is cut"]
    assert "<file>" not in page.read_text()
    bags.append({"bag": "bags/c", "name": "c", "status": "done", "problems": []})
    summary.write_text(json.dumps({"format": 1, "bags": bags}))
    assert "there is no run runs/c.jsonl" in efv2("report", "runs", status=1)
    for text in ("", "[]", '{"format": 2, "bags": []}', '{"format": 1, "bags": [7]}', "[" * 9999):
        summary.write_text(text)
        assert "is not the summary of a fleet" in efv2("report", "runs", status=1)
        assert [row[0] for row in rows(page)] == ["a"]
    Path("runs/a.jsonl").unlink()
    summary.write_text(json.dumps({"format": 1, "bags": bags[1:2]}))
    efv2("report", "runs")
    assert told(page) == ["<b> no <file>"]


def test_names_of_pages(efv2, tmp_path):
    """Odd names, the same name twice, and names that are the same to some file systems."""
    odd = ["index", "a b", "A B", "ü#?%&", "<x>'\"", "c:d", "\udcff", "w" * 240, "..."]
    for name in odd:
        save(run([frame(0, 1)], f"/one/{name}"), tmp_path / "one" / f"{name}.jsonl")
    for name in ("a b", "A b"):
        save(run([frame(0, 1)], f"/two/{name}"), tmp_path / "two" / f"{name}.jsonl")
    efv2("report", "one", "two/a b.jsonl", "two/A b.jsonl", "-o", "out")
    page = Path("out/index.html")
    found = links(page)
    assert len(found) == len(odd) + 2
    assert all(each.is_file() for each in found)
    assert len({each.name.casefold() for each in [*found, page]}) == len(odd) + 3
    names = [row[0] for row in rows(page)]
    assert {"one/a b", "two/a b", "A B", "<x>'\"", "?"} <= set(names)


def test_the_same_runs_give_the_same_bytes(efv2, tmp_path):
    for model, class_id in (("s0", 1), ("s1", 2)):
        make(tmp_path / "bags" / "drive", 6) if model == "s0" else None
        frames = [frame(number, class_id if number % 3 else 3) for number in range(6)]
        save(run(frames, "bags/drive", model), tmp_path / model / "drive.jsonl")
    for out in ("one", "other"):
        efv2("report", "s0", "s1", "-o", out)
    pages = sorted(each.name for each in Path("one").iterdir())
    assert pages == ["drive.html", "drive_2.html", "index.html"]
    for name in pages:
        assert Path("one", name).read_bytes() == Path("other", name).read_bytes()
    text = Path("one/index.html").read_text()
    assert text.count("data:image/jpeg") == 1  # of a pair, a bag shows one image
    efv2("report", "s0", "s1", "-o", "one", "--no-thumbnails")
    assert not any("data:image/jpeg" in Path("one", name).read_text() for name in pages)


def test_bags_that_cannot_be_read_have_no_thumbnails(efv2, tmp_path):
    for model, class_id in (("s0", 1), ("s1", 2)):
        for bag in ("drive", "cut"):
            frames = [frame(number, class_id) for number in range(3)]
            save(run(frames, f"bags/{bag}", model), tmp_path / model / f"{bag}.jsonl")
    make(tmp_path / "bags" / "drive", 3)
    make(tmp_path / "bags" / "cut", 3)
    for file in Path("bags/cut").glob("*.mcap"):
        file.write_bytes(b"")
    said = efv2("report", "s0", "s1", "-o", "out")
    assert said.count("no thumbnails: nothing of bags/cut can be read") == 2
    assert Path("out/index.html").read_text().count("data:image/jpeg") == 1


def test_arguments_that_do_not_fit(efv2, tmp_path):
    for name in ("a", "b"):
        save(run([frame(0, 1)]), tmp_path / "runs" / f"{name}.jsonl")

    def error(*arguments, status=2):
        return efv2("report", *arguments, status=status)

    assert "Missing argument" in error()
    for option in ("--bag", "--topic"):
        assert "--bag and --topic are for a single run" in error("runs", option, "x")
    assert "and --bag names one" in error("runs/a.jsonl", "--bag", "x", "--no-thumbnails")
    assert "runs is a folder" in error("runs/a.jsonl", "-o", "runs")
    Path("file").write_text("")
    assert "file" in error("runs", "-o", "file", status=1) and not Path("file").read_text()
    before = Path("runs/a.jsonl").read_bytes()
    Path("out").mkdir()
    Path("out/index.html").symlink_to(tmp_path / "runs" / "a.jsonl")
    assert "the page would replace" in error("runs", "-o", "out")
    assert Path("runs/a.jsonl").read_bytes() == before and not Path("out/a.html").exists()


def test_bags_of_results_are_runs_too(efv2, tmp_path):
    model = projection(tmp_path / "model.onnx")
    make(tmp_path / "drive", 4)
    efv2("replay", "drive", "--model", model, "--out", "results", "--jsonl", "run.jsonl")
    assert "(2 runs, 8 images)" in efv2("report", "results", "run.jsonl")
    assert [row[0] for row in rows(Path("results_report/index.html"))] == ["results", "run"]
    # A bag of results is one run, also with a file beside its own.
    shutil.copy("run.jsonl", "results/run.jsonl")
    assert "wrote results.html (4 images" in efv2("report", "results")


@pytest.mark.parametrize("seed", range(2))
def test_runs_with_values_replaced(efv2, tmp_path, seed):
    chance = random.Random(seed)
    values = [None, 1e308, -1, 10**30, "x", [], {}, "\ud800", True, 1e-320, 2**31 - 1]
    documents = [
        {"run": {"bag": "b", "topic": "/t", "model": "m", "runtime": "r", "problems": ["p"]}},
        *({"sec": n, "nanosec": 0, "milliseconds": {"infer": 1.5, "wait": 2.5},
           "results": [{"class_id": 1, "label": "cat", "score": 0.5}]} for n in range(4)),
    ]  # fmt: skip
    for name in ("a", "b"):
        save(run([frame(0, 1), frame(1, 2)], "b", name), tmp_path / "runs" / f"{name}.jsonl")
    for _ in range(40):
        changed = json.loads(json.dumps(documents))
        for _ in range(2):
            places = [(changed[0]["run"], key) for key in changed[0]["run"]]
            for each in changed[1:]:
                places += [(each, key) for key in each]
                places += [(part, key) for part in (each.get("milliseconds"),
                           *(each.get("results") or ())) if isinstance(part, dict)
                           for key in part]  # fmt: skip
            container, key = chance.choice(places)
            container[key] = chance.choice(values)
            if not isinstance(changed[0].get("run"), dict) or any(
                not isinstance(each.get("results"), list) for each in changed[1:]
            ):
                break
        text = "\n".join(json.dumps(each) for each in changed)
        Path("runs/c.jsonl").write_text(text)
        done = CliRunner().invoke(main, ["report", "runs", "-o", "out"])
        assert done.exception is None or isinstance(done.exception, SystemExit), text
        assert done.exit_code in (0, 1)
        page = re.sub("<(style|script)>.*?</", "", Path("out/index.html").read_text(), flags=re.S)
        assert not re.search(r"\bnan\b|\binf\b", page), text


# In the browser


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Two models over more bags than a chart shows; images of the two worst ones are on disk."""
    folder = tmp_path_factory.mktemp("fleet")
    chance = np.random.default_rng(4)
    for bag in range(BAGS):
        sure = 0.3 + 1.4 * bag / BAGS
        for model in ("s0", "s1"):
            frames = [
                dropped(number, SCRIPT)
                if chance.random() < 0.05
                else frame(
                    number, int(chance.integers(1, 3)) if bag < 2 else 1,
                    float(chance.uniform(0, min(1, sure))), infer=float(chance.gamma(9, 0.7)),
                )
                for number in range(20)
            ]  # fmt: skip
            name = f"{folder}/bags/{bag:03}"
            problems = [f"{SCRIPT} is cut"] if bag == 3 else []
            one = run(frames, name, model, problems=problems)
            one.labels = {1: f"{SCRIPT}cat", 2: "w" * 200}
            save(one, folder / model / f"{bag:03}.jsonl")
    for bag in range(2):
        make(folder / "bags" / f"{bag:03}", 20, kind=image)
    arguments = ["report", str(folder / "s0"), str(folder / "s1"), "-o", str(folder / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("efv2_ros.report.fleet_page.MOST_BARS", MOST_BARS)
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        probe = Path(__file__).with_name("report_probe.js").read_text()
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=probe)
        yield browser


@pytest.fixture(params=[(WIDE, "light"), (WIDE, "dark"), (NARROW, "light")])
def shown(browser, fleet, request):
    """The probe's findings, and the width of the screen."""
    width, scheme = request.param
    browser.show(fleet.as_uri(), width=width, scheme=scheme)
    browser.wait_for("probe.texts")
    assert browser.troubles == []
    return browser.evaluate("probe"), width


def test_the_page_fits_and_can_be_read(shown, fleet):
    page, width = shown
    assert page["errors"] == [] and page["scrollWidth"] <= width
    assert page["title"] == "s0, s1: 50 runs" and page["scripts"] == 1
    pages = {each.name for each in fleet.parent.iterdir()} - {"index.html"}
    assert len(pages) == 2 * BAGS
    links = {each for each in page["urls"] if not each.startswith("data:")}
    assert links == pages
    for row in (row for rows in page["charts"] for row in rows):
        assert row["plot"]["width"] > 0.7 * width
        for tick in row["ticks"]:
            assert tick["box"]["left"] >= 0 and tick["box"]["right"] <= width
    page["drawn"] = [each for each in page["drawn"] if each["kind"] != "mark"] * 10
    check_contrast(page)
    for text in (f"{SCRIPT} is cut", SCRIPT, "The chart leaves out the best 10."):
        assert text in page["text"]


def test_charts_show_the_worst_first(shown, fleet):
    page, _ = shown
    bags, differences = page["charts"]
    names = [row["name"] for row in bags]
    assert names == ["dropped", "below 50%", "mean score", "p95 latency", "worst first"]
    unsure = np.zeros(MOST_BARS)
    for row in bags[:2]:
        values = [float(each["text"].rsplit(": ", 1)[1].split()[0]) for each in row["marks"]]
        assert len(values) == MOST_BARS
        unsure += values
        heights = np.zeros(MOST_BARS)
        for left, _, height, _ in re.findall(
            r"M([\d.]+),72h([\d.]+)v-([\d.]+)h-([\d.]+)z", row["curves"][0]["d"]
        ):
            heights[int(float(left) / 1000 * MOST_BARS)] = float(height)
        tick = row["ticks"][-1]
        top = float(tick["text"].split()[0])
        middle = tick["box"]["top"] + tick["box"]["height"] / 2 - row["plot"]["top"]
        assert heights == pytest.approx(np.array(values) / top * (72 - middle), abs=1.6)
        for each, number in zip(row["marks"], range(MOST_BARS), strict=True):
            room = row["plot"]["width"] / MOST_BARS
            assert each["box"]["left"] == pytest.approx(row["plot"]["left"] + number * room, abs=1)
            assert each["box"]["height"] == 72
    assert (np.diff(unsure) < 0.2).all()
    assert differences[0]["name"] == "different" and len(differences[0]["marks"]) == BAGS


def test_pictures_of_what_models_disagree_about(shown):
    page, width = shown
    assert 2 <= len(page["images"]) <= 4  # two bags, two pairs of classes
    for each in page["images"]:
        assert each["size"] == [32, 24] and each["box"]["right"] <= width
        first, score, second, _, where = each["caption"].split("\n")
        assert {first, second} == {f"{SCRIPT}cat", "w" * 200} and score.endswith("%")
        assert re.fullmatch(r"00[01] · 0\.\d\d\ss", where)


def test_tables_are_sorted_by_their_headings(browser, fleet):
    browser.show(fleet.as_uri())
    browser.wait_for("probe.texts")

    def press(column):
        return browser.evaluate(f"""(() => {{
          const table = document.querySelector(".long table");
          const heading = table.tHead.rows[0].cells[{column}];
          heading.querySelector("button").click();
          const cells = [...table.tBodies[0].rows].map((row) => row.cells[{column}].textContent);
          return [heading.getAttribute("aria-sort"), ...cells];
        }})()""")

    order, *shares = press(4)
    figures = [float(each.rstrip("%")) for each in shares]
    assert order == "descending" and figures == sorted(figures, reverse=True)
    order, *again = press(4)
    assert order == "ascending" and [float(each.rstrip("%")) for each in again] == sorted(figures)
    order, *names = press(0)
    assert order == "ascending" and names == sorted(names) and len(names) == 2 * BAGS
    assert press(0)[:2] == ["descending", names[-1]]
    assert browser.evaluate("document.querySelectorAll('[aria-sort]').length") == 1


def test_a_bar_tells_what_it_is_and_leads_to_its_page(browser, fleet):
    browser.show(fleet.as_uri())
    browser.wait_for("probe.texts")
    told = browser.evaluate("""(() => {
      const mark = document.querySelector(".mark");
      mark.dispatchEvent(new FocusEvent("focus"));
      return document.querySelector(".tip").textContent;
    })()""")
    name = told.split(",")[0]
    assert re.fullmatch(rf"{name}, s[01] on onnx\ndropped: \d+\.\d %", told)
    browser.evaluate("document.querySelector('.mark').dispatchEvent("
                     "new MouseEvent('click', {bubbles: true, cancelable: true}))")  # fmt: skip
    browser.wait_for(f"document.querySelector('h1').textContent === '{name}'")
