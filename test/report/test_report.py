"""The page that `efv2 report` makes, as a real browser shows it."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_maker import PERIOD, START, compressed, image, make, picture, stamps, write
from click.testing import CliRunner
from contrast import check_contrast
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_models import projection

from efv2_ros.bags.bag import Bag
from efv2_ros.classify.postprocess import Prediction
from efv2_ros.cli.main import main
from efv2_ros.errors import Efv2Error
from efv2_ros.pictures.annotate import to_bgr
from efv2_ros.pictures.photo import read_photo
from efv2_ros.replay.run import FrameResult, Run, write_jsonl
from efv2_ros.report.page import write_report
from efv2_ros.report.scales import Scale, linear_scale, logarithmic_scale, time_ticks
from efv2_ros.report.series import Axis, envelope
from efv2_ros.report.thumbnails import find_thumbnails, wanted_thumbnails
from efv2_ros.vision.frame import Frame, Header

WIDE, NARROW = 1400, 400

SCRIPT = "<script>document.title = 'hacked'</script>"
LABELS = {
    1: f"{SCRIPT} \"quoted\" & 'so'",
    2: "大白鲨",
    3: "an endless label, " * 20,
    4: "w" * 300,
}
BGR = {1: (200, 60, 30), 2: (40, 180, 60), 3: (30, 50, 210), 4: (120, 120, 120)}
DROPS = {10: "decode", 120: "superseded", 220: "superseded", 221: "superseded", 222: "decode"}
SPIKE, SPIKE_MS = 180, 48.25
SEGMENTS = [(1, 0, 100), (2, 100, 150), (1, 150, 200), (3, 200, 290), (4, 290, 300)]
"""Class, first image, image after the last."""


def at(number):
    return Header(*divmod(START + number * PERIOD, 10**9), "camera")


def durations(random, infer=None):
    stages = {
        "wait": random.gamma(2, 0.2), "convert": random.gamma(9, 0.03),
        "infer": infer or 6 + random.gamma(2, 0.1), "postprocess": random.gamma(9, 0.006),
        "publish": random.gamma(9, 0.02),
    }  # fmt: skip
    return stages | {"end_to_end": sum(stages.values()) + 1}


def drive():
    """Segments, spikes and drops at known places, and labels that are markup."""
    random = np.random.default_rng(5)
    frames = []
    for class_id, first, end in SEGMENTS:
        for number in range(first, end):
            if number in DROPS:
                reason = f"{SCRIPT} image {number}" if DROPS[number] == "decode" else ""
                frames.append(FrameResult(at(number), dropped=DROPS[number], reason=reason))
                continue
            score = 1.0 if number == 60 else random.uniform(0.3, 0.9)
            timings = durations(random, SPIKE_MS if number == SPIKE else None)
            prediction = Prediction((class_id, 900), (score, 0.0))
            frames.append(FrameResult(at(number), prediction, milliseconds=timings))
    info = {"bag": f"bags/{SCRIPT.replace('/', '')}", "topic": "/camera/image_raw",
            "model": "efficientformerv2_s0", "runtime": "onnx 1.23.2",
            "view": {"fit": "letterbox", "roi": None}}  # fmt: skip
    return Run(info, LABELS, frames)


def long_drive(count=50_000):
    random = np.random.default_rng(6)
    timings = random.gamma(9, 0.7, count)
    timings[31_415] = 99.0
    frames = [
        FrameResult(at(n), dropped="superseded")
        if n % 50 == 7
        else FrameResult(
            at(n),
            Prediction((int(n // 900) % 12,), (0.5,)),
            milliseconds={"infer": float(timings[n])},
        )
        for n in range(count)
    ]
    return Run({"bag": "long"}, {n: f"class number {n}" for n in range(12)}, frames)


def flickering(count=100_000):
    """The largest page: another class for every image, every other dropped for another cause."""
    random = np.random.default_rng(7)
    frames = [
        FrameResult(at(n), dropped=f"cause {random.integers(40)}", reason=f"reason {n}")
        if n % 2
        else FrameResult(
            at(n), Prediction((n % 997,), (random.random(),)), milliseconds=durations(random)
        )
        for n in range(count)
    ]
    return Run({"bag": "flickering"}, {n: f"a label of a class, {n}" for n in range(997)}, frames)


def shortened(run, count):
    return replace(run, frames=run.frames[:count])


def some_runs():
    run = drive()
    same_stamps = [replace(frame, header=Header(3)) for frame in run.frames]
    without = [replace(frame, milliseconds={}) for frame in run.frames]
    partly = [*without[:200], *run.frames[200:]]
    partly[230] = replace(partly[230], prediction=Prediction((), ()))
    slow = list(run.frames)
    slow[SPIKE] = replace(slow[SPIKE], milliseconds={"infer": 2000.0, "wait": 0.0})
    return {
        "drive": run,
        "one": shortened(run, 1),
        "dropped": replace(run, frames=[FrameResult(at(n), dropped="late") for n in range(9)]),
        "equal": replace(run, frames=same_stamps),
        "untimed": replace(run, frames=without),
        "partly": replace(run, frames=partly, lost={"superseded": 17}, info={"bag": ""}),
        "slow": replace(run, frames=slow),
        "empty": Run({}, {}, []),
        "long": long_drive(),
    }


def thumbnails(run):
    """A picture in the colour of the class, twice as wide as high."""
    wanted = {index: run.frames[index].prediction.class_ids[0] for index in wanted_thumbnails(run)}
    return {index: np.full((200, 400, 3), BGR[each], np.uint8) for index, each in wanted.items()}


class Chromium:
    """Starts a headless browser, or skips the test."""

    NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

    def __init__(self, folder):
        self._program = next(filter(None, map(shutil.which, self.NAMES)), None)
        if self._program is None:
            pytest.skip(f"no browser to look at the page with: {', '.join(self.NAMES)}")
        self._folder = folder

    def __call__(self, page, *options):
        """The page's DOM after it has loaded, as HTML."""
        command = [
            self._program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", f"--user-data-dir={self._folder / 'profile'}",
            "--virtual-time-budget=5000", *options, "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=True
        ).stdout


def look(chromium, folder, frames, *options):
    """What the probe finds in each page.

    Args:
        chromium: The browser.
        folder: For the pages.
        frames: Report and width in pixels, by name.
        options: Of the browser.
    """
    probe = Path(__file__).with_name("report_probe.js").read_text()
    inner = []
    for name, (report, width) in frames.items():
        page = report.read_text(encoding="utf-8")
        assert page.count("<head>") == 1
        probed = folder / f"{name}.probed.html"
        probed.write_text(page.replace("<head>", f"<head><script>{probe}</script>"))
        inner.append(f'<iframe name="{name}" src="{probed.as_uri()}" width="{width}" '
                     'height="4000" style="border: 0"></iframe>')  # fmt: skip
    outer = folder / "outer.html"
    outer.write_text(f"""<!DOCTYPE html><meta name="color-scheme" content="light dark">
        <body style="margin: 0"><pre id="probe" hidden></pre><script>
        const seen = {{}};
        addEventListener("message", ({{ data }}) => {{
          seen[data.name] = data.probe;
          document.getElementById("probe").textContent = JSON.stringify(seen);
        }});</script>{"".join(inner)}""")
    dom = chromium(outer, f"--window-size={WIDE},4000", *options)
    found = json.loads(
        html.unescape(re.search(r'<pre id="probe" hidden="">(.*?)</pre>', dom, re.S)[1])
    )
    assert set(found) == set(frames)
    return found


@pytest.fixture(scope="module")
def runs():
    return some_runs()


@pytest.fixture(scope="module")
def reports(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    paths = {}
    for name, run in runs.items():
        paths[name] = folder / f"{name}.html"
        write_report(run, paths[name], thumbnails(run) if name == "drive" else {})
    return paths


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    return Chromium(tmp_path_factory.mktemp("chromium"))


@pytest.fixture(scope="module")
def seen(chromium, reports, tmp_path_factory):
    """All pages at once, since a browser takes seconds to start."""
    frames = {name: (path, WIDE) for name, path in reports.items()}
    for name in ("drive", "one", "partly", "dropped"):
        frames[f"{name}, narrow"] = reports[name], NARROW
    return look(chromium, tmp_path_factory.mktemp("seen"), frames)


def chart(page, name):
    """The first row of this name."""
    return next(row for rows in page["charts"] for row in rows if row["name"] == name)


def table(page, heading):
    """The rows below the heading row that has this text."""
    return next(each["rows"][1:] for each in page["tables"] if heading in each["rows"][0])


def milliseconds(run, stage):
    """Seconds on the axis, and the durations of a stage."""
    known = [frame for frame in run.frames if stage in frame.milliseconds]
    first = run.frames[0].header.nanoseconds
    return (
        np.array([(frame.header.nanoseconds - first) / 1e9 for frame in known]),
        np.array([frame.milliseconds[stage] for frame in known]),
    )


def axis_end(run):
    first, *_, last = (frame.header.nanoseconds for frame in run.frames)
    return (last - first + PERIOD) / 1e9


def vertical(row):
    """Turns a height in the plot into a value, by the ticks that a reader sees."""
    ticks = [
        (tick["box"]["top"] + tick["box"]["height"] / 2 - row["plot"]["top"],
         float(tick["text"].split()[0]))
        for tick in row["ticks"]
    ]  # fmt: skip
    (low, first), *_, (high, last) = ticks
    assert low != high
    return lambda y: first + (np.asarray(y) - low) * (last - first) / (high - low)


def points(row, kind):
    """Shares of the width, and heights, of a path's points."""
    path = next(each["d"] for each in row["curves"] if each["kind"] == kind)
    found = np.array(re.findall(r"[ML]([\d.]+),(-?[\d.]+)", path), float)
    return found[:, 0] / 1000, found[:, 1]


def inside(inner, outer, tolerance=1.0):
    return (
        inner["left"] >= outer["left"] - tolerance
        and inner["right"] <= outer["right"] + tolerance
        and inner["top"] >= outer["top"] - tolerance
        and inner["bottom"] <= outer["bottom"] + tolerance
    )


def test_nothing_fails_and_nothing_is_fetched(seen, reports):
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"',
                       reports["drive"].read_text())  # fmt: skip
    assert html.unescape(policy[1]).startswith("default-src 'none'; img-src data:; ")
    for name, page in seen.items():
        assert page["errors"] == [], name
        assert all(url.startswith("data:") for url in page["urls"]), name
        assert page["scripts"] == 2, name  # the page's own and the probe
        assert page["language"] == "en"
        assert not {"iframe", "object", "embed", "form", "a"} & set(page["elements"])


def test_pages_are_as_wide_as_the_screen(seen):
    for name, page in seen.items():
        assert page["width"] == (NARROW if "narrow" in name else WIDE), name
        assert page["scrollWidth"] <= page["width"], name
        for row in (row for rows in page["charts"] for row in rows):
            assert row["plot"]["width"] > 0.7 * page["width"]
            if "narrow" not in name:
                assert row["gutter"]["right"] <= row["plot"]["left"] + 1
            for text in [*row["notes"], *row["ticks"]]:
                assert text["box"]["left"] >= 0, text
                assert text["box"]["right"] <= page["width"], text


def test_labels_and_reasons_are_text(seen):
    page = seen["drive"]
    assert page["title"].startswith("<script>document.title")
    assert page["title"].endswith(": efficientformerv2_s0 on onnx 1.23.2")
    for text in (LABELS[1], LABELS[2], f"{SCRIPT} image 10", "letterbox"):
        assert text in page["text"], text
    assert "roi" not in page["text"]
    assert [row["name"] for row in page["charts"][2]][:4] == [LABELS[n] for n in (1, 3, 2, 4)]


def test_header_counts(seen, runs):
    text = seen["drive"]["text"]
    for line in ("images\n300", "classified\n295 98.3%", "dropped\n5 1.7%", "duration\n9.97 s",
                 "rate\n30.0 images a second", "topic\n/camera/image_raw"):  # fmt: skip
        assert line in text, line
    assert "duration\n27:46.6 min:s" in seen["long"]["text"]
    assert "images\n317\nclassified\n295 93.1%\ndropped\n22 6.9%" in seen["partly"]["text"]


@pytest.mark.parametrize("name", ["drive", "one", "long", "partly", "slow"])
def test_table_of_stages(seen, runs, name):
    rows = table(seen[name], "p99 (ms)")
    for stage, *figures in rows:
        _, values = milliseconds(runs[name], stage.replace(" ", "_"))
        expected = [*np.percentile(values, (50, 95, 99)), values.max(), values.mean()]
        assert figures == [*(f"{each:.3f}" for each in expected), f"{values.size:,}"]
    stages = ["wait", "convert", "infer", "postprocess", "publish", "end to end"]
    assert [row[0] for row in rows] == (["infer"] if name == "long" else stages)
    assert set(seen[name]["tables"][0]["numbers"]) == {"right"}


@pytest.mark.parametrize("stage", ["wait", "convert", "infer", "postprocess", "publish"])
@pytest.mark.parametrize("width", ["drive", "drive, narrow"])
def test_every_image_has_its_dot_at_its_time_and_duration(seen, runs, stage, width):
    run, row = runs["drive"], chart(seen[width], stage)
    seconds, values = milliseconds(run, stage)
    for kind in ("dots", "line"):
        x, y = points(row, kind)
        assert x == pytest.approx(seconds / axis_end(run), abs=2e-4)
        scale = vertical(row)
        tolerance = abs(scale(1.0) - scale(0.0))  # a pixel
        assert scale(y) == pytest.approx(values, abs=tolerance)
        (shown,) = [each["box"] for each in row["curves"] if each["kind"] == kind]
        assert inside(shown, row["plot"])
        assert shown["width"] > 0.98 * row["plot"]["width"] and shown["height"] > 5


def test_the_highest_spike_is_marked(seen, runs):
    for name in ("drive", "drive, narrow"):
        row = chart(seen[name], "infer")
        (peak,) = row["peaks"]
        x = row["plot"]["left"] + row["plot"]["width"] * SPIKE * PERIOD / 1e9 / axis_end(
            runs["drive"]
        )
        assert peak["left"] + peak["width"] / 2 == pytest.approx(x, abs=1)
        y = peak["top"] + peak["height"] / 2 - row["plot"]["top"]
        assert vertical(row)(y) == pytest.approx(SPIKE_MS, rel=0.03)
        (note,) = row["notes"]
        assert note["text"] == "max 48.2 ms at 6.00 s"
        assert note["box"]["left"] >= 0 and note["box"]["right"] <= seen[name]["width"]
        assert "highest 48.2 ms at 6.00 s" in row["label"]


def test_no_spike_is_lost_where_images_share_a_column(seen, runs):
    row, run = chart(seen["long"], "infer"), runs["long"]
    seconds, values = milliseconds(run, "infer")
    path = next(each["d"] for each in row["curves"] if each["kind"] == "band")
    left, top, height = np.array(re.findall(r"M([\d.]+),([\d.]+)h1v([\d.]+)h-1z", path), float).T
    columns = np.rint(left).astype(int)
    assert columns.tolist() == list(range(1000))
    column = (seconds / axis_end(run) * 1000).astype(int)
    scale, medians = vertical(row), []
    pixel = abs(scale(1.0) - scale(0.0))
    for number, high, low in zip(columns, scale(top), scale(top + height), strict=True):
        shared = values[column == number]
        assert high == pytest.approx(shared.max(), abs=pixel)
        assert low == pytest.approx(shared.min(), abs=2 * pixel)
        medians.append(np.median(shared))
    x, y = points(row, "line")
    assert x == pytest.approx((columns + 0.5) / 1000, abs=1e-4)
    assert scale(y) == pytest.approx(np.array(medians), abs=pixel)
    (peak,) = row["peaks"]
    expected = row["plot"]["width"] * 31_415 * PERIOD / 1e9 / axis_end(run)
    assert peak["left"] + 4 - row["plot"]["left"] == pytest.approx(expected, abs=1)
    assert "1,000 columns" in seen["long"]["text"]


def test_a_spike_far_above_the_rest_makes_scales_logarithmic(seen, runs):
    page = seen["slow"]
    assert "Scales are logarithmic, because the slowest infer took" in page["text"]
    assert "linear from zero" in seen["drive"]["text"]
    row = chart(page, "infer")
    ticks = [float(tick["text"].split()[0]) for tick in row["ticks"]]
    heights = [tick["box"]["top"] for tick in row["ticks"]]
    assert ticks == [10, 100, 1000]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.5)
    _, y = points(row, "dots")
    _, values = milliseconds(runs["slow"], "infer")
    slope = (heights[0] - heights[1]) / np.log(10)
    assert y.max() - y == pytest.approx(slope * np.log(values / values.min()), abs=0.5)


def test_distributions(seen, runs):
    for name in ("drive", "drive, narrow", "long", "one", "one, narrow"):
        page = seen[name]
        *rows, axis = page["charts"][1]
        ticks = [(tick["box"]["left"] + tick["box"]["width"] / 2, np.log(float(tick["text"])))
                 for tick in axis["ticks"]]  # fmt: skip
        (left, low), *_, (right, high) = ticks
        for row in rows:
            _, values = milliseconds(runs[name.split(",")[0]], row["name"].replace(" ", "_"))
            expected = np.percentile(values, (50, 95, 99))
            shown = [each["left"] for each in row["percentiles"]]
            at = np.exp(low + (np.array(shown) - left) * (high - low) / (right - left))
            # A pixel is worth so much: labels are no more exact than that.
            assert at == pytest.approx(expected, rel=2 * (high - low) / (right - left))
            assert [note["text"][:4] for note in row["notes"]] == ["p50 ", "p95 ", "p99 "]
            for note, value in zip(row["notes"], expected, strict=True):
                assert float(note["text"][4:]) == pytest.approx(value, rel=0.02)
                assert note["box"]["right"] <= page["width"]
            tops = [note["box"]["top"] for note in row["notes"]]
            assert tops[0] < tops[1] < tops[2]  # none covers another
            (bars,) = row["curves"]
            assert inside(bars["box"], row["plot"])
            heights = [float(each) for each in re.findall(r"v-([\d.]+)", bars["d"])]
            assert max(heights) == pytest.approx(50) and min(heights) >= 1.5
            assert len(heights) <= values.size
    *rows, _ = seen["long"]["charts"][1]
    assert "infer" in rows[0]["name"] and "49,000 images" in rows[0]["readout"]


def test_drops(seen, runs):
    rows = {row[0]: row[1:] for row in table(seen["drive"], "first reasons")}
    assert rows["classified"][:2] == ["295", "98.3%"]
    assert rows["decode"][:2] == ["2", "0.7%"]
    assert rows["decode"][2] == f"0.33 s: {SCRIPT} image 107.40 s: {SCRIPT} image 222"
    assert rows["superseded"][:2] == ["3", "1.0%"]
    assert "None." in seen["one"]["text"]
    marks = {name: chart(seen["drive"], name)["marks"] for name in ("decode", "superseded")}
    plot = chart(seen["drive"], "decode")["plot"]
    for cause, shown in marks.items():
        numbers = [number for number, each in DROPS.items() if each == cause]
        middles = [mark["box"]["left"] + mark["box"]["width"] / 2 for mark in shown]
        expected = [plot["left"] + plot["width"] * (number + 0.5) / 300 for number in numbers]
        assert middles == pytest.approx(expected, abs=1)
        assert all(inside(mark["box"], plot | chart(seen["drive"], cause)["plot"])
                   and mark["box"]["width"] > 2 for mark in shown)  # fmt: skip
    assert marks["decode"][1]["text"] == f"dropped: decode\n7.40 s\n{SCRIPT} image 222"
    assert marks["superseded"][1]["text"] == "dropped: superseded\n7.33 s"


def test_drops_of_runs_without_timings_or_stamps(seen):
    assert "without --timings" in seen["untimed"]["text"]
    assert len(chart(seen["untimed"], "decode")["marks"]) == 2
    rows = {row[0]: row[1:] for row in table(seen["partly"], "first reasons")}
    assert rows["superseded"] == ["20", "6.3%", "17 of them were only counted, without a stamp"]
    page = seen["dropped"]
    assert "No image was classified." in page["text"]
    assert [row[:3] for row in table(page, "first reasons")] == [
        ["classified", "0", "0.0%"],
        ["late", "9", "100.0%"],
    ]
    assert "198 classified images without timings are left out" in seen["partly"]["text"]
    assert [mark["text"] for mark in chart(page, "late")["marks"]] == [
        f"dropped: late\n{n * PERIOD / 1e9:.2f} s" for n in range(9)
    ]
    long = chart(seen["long"], "superseded")["marks"]
    assert sum(int(mark["text"].split()[0]) for mark in long) == 1000
    assert 100 < len(long) < 200
    heights = [mark["box"]["height"] for mark in long]
    assert heights == pytest.approx([1.5] * len(long))  # 2 % of the images
    assert chart(page, "late")["marks"][0]["box"]["height"] == pytest.approx(12)
    assert "images\n0\n" in seen["empty"]["text"] and seen["empty"]["charts"] == []


def test_timeline(seen):
    for name in ("drive", "drive, narrow"):
        rows = seen[name]["charts"][2]
        shown = sorted(
            (mark["box"]["left"], mark["box"]["right"], row["name"], mark["text"], row["plot"])
            for row in rows
            for mark in row["marks"]
        )
        assert [each[2] for each in shown] == [LABELS[class_id] for class_id, *_ in SEGMENTS]
        for (left, right, _, text, plot), (class_id, first, end) in zip(
            shown, SEGMENTS, strict=True
        ):
            assert left == pytest.approx(plot["left"] + plot["width"] * first / 300, abs=1)
            assert right - left == pytest.approx(plot["width"] * (end - first) / 300, abs=1)
            classified = end - first - sum(first <= number < end for number in DROPS)
            assert text.startswith(f"{LABELS[class_id]}\n")
            assert f"\n{classified} images\nscore " in text
        assert "3.33 to 5.00 s" in shown[1][3]
        assert shown[0][3].endswith(" to 100.0%")
        assert len({row["marks"][0]["fill"] for row in rows if row["marks"]}) == 4
        plots = {(row["plot"]["left"], row["plot"]["width"]) for rows in seen[name]["charts"]
                 for row in rows}  # fmt: skip
        assert len(plots) == 1  # one time axis for the eye
        shares = [row["readout"] for row in rows if row["marks"]]
        assert shares == ["50.5%", "29.5%", "16.6%", "3.4%"]


def test_score_over_time(seen, runs):
    row = chart(seen["drive"], "score")
    x, y = points(row, "dots")
    scores = [f.prediction.scores[0] for f in runs["drive"].frames if not f.dropped]
    assert vertical(row)(y) == pytest.approx(np.array(scores) * 100, abs=1.5)
    assert x[60 - 1] == pytest.approx(60 / 300, abs=1e-3)  # image 10 was dropped


def test_rare_classes_share_a_lane(seen, runs):
    rows = [row for row in seen["long"]["charts"][2] if row["marks"]]
    names = [row["name"] for row in rows]
    assert len(names) == 9 and names[-1] == "other"
    other = next(mark for mark in rows[-1]["marks"] if "segments" not in mark["text"])
    assert re.match(r"class number \d+\n", other["text"])
    for row in rows:
        assert all(inside(mark["box"], row["plot"]) for mark in row["marks"])
        assert all(mark["box"]["width"] > 0 for mark in row["marks"])


def test_results_below_the_threshold_are_a_class_of_their_own(seen):
    row = chart(seen["partly"], "no result above the threshold")
    assert [mark["text"] for mark in row["marks"]] == [
        "no result above the threshold\n7.67 to 7.70 s\n1 image"
    ]


def test_equal_stamps_are_counted(seen):
    page = seen["equal"]
    assert "all stamps are equal" in page["text"]
    assert chart(page, "infer")["notes"][0]["text"] == "max 48.2 ms at image 181"
    assert [tick["text"] for tick in page["charts"][0][-1]["ticks"]] == [
        "50", "100", "150", "200", "250", "300",
    ]  # fmt: skip
    marks = chart(page, LABELS[2])["marks"]
    assert [mark["text"].split("\n")[1] for mark in marks] == ["images 101 to 150"]
    assert chart(seen["one"], "infer")["peaks"][0]["width"] > 5


def test_thumbnails(seen, runs):
    for name in ("drive", "drive, narrow"):
        images = seen[name]["images"]
        assert len(images) == len(SEGMENTS)
        for shown, (class_id, first, end) in zip(images, SEGMENTS, strict=True):
            scores = {
                number: frame.prediction.scores[0]
                for number, frame in enumerate(runs["drive"].frames[first:end], first)
                if not frame.dropped
            }
            best = max(scores, key=scores.get)
            when = f"{best * PERIOD / 1e9:.2f} s"
            assert shown["size"] == [160, 80]
            assert shown["box"]["width"] / shown["box"]["height"] == pytest.approx(2, rel=0.05)
            blue, green, red = BGR[class_id]
            assert shown["pixel"] == pytest.approx([red, green, blue, 255], abs=4)
            assert shown["alt"] == f"{LABELS[class_id]} at {when}"
            assert shown["caption"].endswith(f"{scores[best]:.1%} · {when}")
    assert "efv2 report RESULTS --bag 'bags/<script>" in seen["untimed"]["text"]
    assert "efv2 report RESULTS --bag BAG\n" in seen["partly"]["text"]
    assert seen["untimed"]["images"] == []


def test_hover_tells_what_is_at_the_pointer(seen, runs):
    latency, classes = seen["drive"]["hovered"]
    at = 0.6 * axis_end(runs["drive"])
    assert latency["when"] == classes["when"] == f"{at:.2f} s"
    assert latency["hidden"] and latency["cross"]["height"] > 300
    names = [row["name"] for row in seen["drive"]["charts"][0]]
    assert latency["readouts"][names.index("infer")] == "48.2 ms"
    assert chart(seen["drive"], "infer")["readout"].startswith("median ")
    long = seen["long"]["hovered"][0]
    assert long["when"] == "16:40.0" and long["readouts"][0].endswith(" max ms")


def test_the_keyboard_goes_from_segment_to_segment(seen):
    latency, classes = seen["drive"]["walked"]
    assert latency["stops"] == classes["stops"] == 1
    assert [each.split("\n")[0] for each in classes["told"]] == [
        LABELS[class_id] for class_id, *_ in SEGMENTS
    ]
    assert len(latency["told"]) == 5 and latency["hidden"] and classes["hidden"]


def test_contrast_in_light_mode(seen):
    for name in ("drive", "long"):
        check_contrast(seen[name])
        assert seen[name]["texts"][0]["behind"] == [255, 255, 255, 1]


def test_contrast_in_dark_mode(chromium, reports, tmp_path):
    frames = {name: (reports[name], WIDE) for name in ("drive", "long")}
    for page in look(
        chromium, tmp_path, frames, "--blink-settings=preferredColorScheme=0"
    ).values():
        check_contrast(page)
        assert max(page["texts"][0]["behind"][:3]) < 40


def test_a_screenshot_shows_the_charts(chromium, reports, seen, tmp_path):
    file = tmp_path / "page.png"
    chromium(reports["drive"], f"--window-size={WIDE},4000", f"--screenshot={file}")
    picture = cv2.imread(str(file))
    assert picture.shape == (4000, WIDE, 3)
    for stage in ("wait", "convert", "infer", "postprocess", "publish"):
        row = chart(seen["drive"], stage)
        top, left, right = (int(row["plot"][edge]) for edge in ("top", "left", "right"))
        plot = picture[top : top + 72, left:right].astype(int)
        blue, green, red = (int(row["colour"].strip()[i : i + 2], 16) for i in (5, 3, 1))
        drawn = (np.abs(plot - (blue, green, red)) < 60).all(axis=2)
        assert drawn.any(axis=0).mean() > 0.5, stage  # of the columns


def test_size(tmp_path, photos):
    run = drive()
    labels = {number: f"a label, {number}" for number in range(60)}
    frames = [
        replace(frame, prediction=Prediction((number // 6,), (0.5,)))
        if not frame.dropped
        else frame
        for number, frame in enumerate(run.frames)
    ]
    run = replace(run, frames=frames, labels=labels)
    pictures = [to_bgr(read_photo(photo)) for photo in photos]
    wanted = wanted_thumbnails(run)
    assert len(wanted) == 40
    shown = {index: pictures[number % 3] for number, index in enumerate(wanted)}
    write_report(run, tmp_path / "photos.html", shown)
    page = (tmp_path / "photos.html").read_text()
    assert page.count("data:image/jpeg") == 40
    assert len(page.encode()) < 300_000

    run = flickering()
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    write_report(run, tmp_path / "long.html", dict.fromkeys(wanted_thumbnails(run), noise))
    assert (tmp_path / "long.html").stat().st_size < 1_500_000


def test_the_same_run_gives_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        run = drive()
        write_report(run, tmp_path / f"{name}.html", thumbnails(run))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "other.html").read_bytes()


# Without a browser


def classified(number, class_id, score=0.5):
    return FrameResult(at(number), Prediction((class_id,), (score,)))


def marks(run, tmp_path):
    """What the bars of the page say, by the name of their lane."""
    write_report(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    lanes = re.findall(r'<span class="name" title="([^"]*)">.*?</svg>', page, re.DOTALL)
    parts = re.split(r'<span class="name" title="[^"]*">', page)[1:]
    return {
        lane: [html.unescape(each) for each in re.findall("<title>(.*?)</title>", part, re.DOTALL)]
        for lane, part in zip(lanes, parts, strict=True)
    }


def test_a_pause_ends_a_segment_and_a_drop_does_not(tmp_path):
    frames = [classified(number, 1) for number in range(20)]
    frames[5] = FrameResult(at(5), dropped="decode")
    frames += [classified(number, 1) for number in range(40, 50)]
    frames += [FrameResult(at(50), dropped="decode"), classified(51, 2), classified(52, 2)]
    lanes = marks(Run({}, {1: "cat", 2: "cup"}, frames), tmp_path)
    assert lanes["cat"] == [
        "cat\n0.00 to 0.67 s\n19 images\nscore 50.0%",
        "cat\n1.33 to 1.70 s\n10 images\nscore 50.0%",
    ]
    assert lanes["cup"] == ["cup\n1.70 to 1.77 s\n2 images\nscore 50.0%"]
    page = (tmp_path / "page.html").read_text()
    (line,) = re.findall(r'd="(M[^"]*)" class="line"', page)
    assert line.count("M") == 2 and line.count("L") == 29


def test_images_shown_are_the_best_of_different_and_of_long_segments():
    random = np.random.default_rng(1)
    frames, bests = [], {}
    for segment in range(400):
        class_id = 500 + segment % 2 if segment % 4 else segment % 25
        usual = random.integers(6, 9) if segment < 200 else random.integers(1, 4)
        scores = random.uniform(0.1, 0.9, 20 if segment % 40 == 17 else usual)
        bests[len(frames) + int(scores.argmax())] = segment, class_id, scores.size
        frames += [classified(len(frames) + n, class_id, s) for n, s in enumerate(scores.tolist())]
    wanted = wanted_thumbnails(Run({}, {}, frames))
    assert len(wanted) == len(set(wanted)) == 40 and wanted == sorted(wanted)
    assert set(wanted) <= set(bests)
    shown = [bests[index] for index in wanted]
    assert len({class_id for _, class_id, _ in shown}) >= 20
    assert set(range(17, 400, 40)) <= {segment for segment, _, _ in shown}
    gaps = np.diff([0, *wanted, len(frames)])
    assert gaps.max() < len(frames) / 8  # spread over the whole run


def test_envelope_is_exact():
    random = np.random.default_rng(2)
    positions, values = np.sort(random.uniform(0, 60, 5000)), random.normal(0, 1, 5000)
    values[::7] = np.nan
    found = envelope(Axis("seconds", 0.0, 60.0), positions, values)
    assert found.summarised
    column = (positions / 60 * 1000).astype(int)
    expected = np.array(
        [
            [(number + 0.5) * 0.06, *np.nanpercentile(values[column == number], (0, 50, 100))]
            for number in np.unique(column[~np.isnan(values)])
        ]
    )
    assert pytest.approx(expected) == np.array(found[:4]).T


def test_few_segments_are_all_shown():
    run = Run({}, {}, [classified(number, number // 3, number % 3 / 10) for number in range(30)])
    assert wanted_thumbnails(run) == list(range(2, 30, 3))
    assert wanted_thumbnails(Run({}, {}, [])) == []


def test_thumbnails_are_found_by_stamp(tmp_path):
    messages = [("/image", stamp, image(number, stamp)) for number, stamp in enumerate(stamps(8))]
    late = messages.pop(2)
    path = write(tmp_path / "bag", [*messages, late])
    run = Run({}, {}, [classified(number, number) for number in range(8)])
    with Bag(path) as bag:
        found = find_thumbnails(run, [2, 5, 6], bag.images(bag.image_topic()))
    assert {number: each.tolist() for number, each in found.items()} == {
        number: picture(number).tolist() for number in (2, 5, 6)
    }


def test_thumbnails_of_equal_stamps_are_in_the_order_of_the_bag(tmp_path):
    messages = [("/image", START + number, image(number, START)) for number in range(6)]
    run = Run({}, {}, [classified(0, number) for number in range(6)])
    with Bag(write(tmp_path / "bag", messages)) as bag:
        found = find_thumbnails(run, [1, 4], bag.images(bag.image_topic()))
    assert found.keys() == {1, 4}
    assert np.array_equal(found[1], picture(1)) and np.array_equal(found[4], picture(4))


def test_images_that_cannot_be_read_have_no_thumbnail(tmp_path):
    cut = compressed(1, START + PERIOD, data=np.frombuffer(b"\xff\xd8\xff\xe0no", np.uint8))
    fine = compressed(2, START + 2 * PERIOD)
    kind = fine[0]
    messages = [
        ("/image", START, (kind, b"\0\1\0\0")),
        ("/image", START + PERIOD, cut),
        ("/image", START + 2 * PERIOD, fine),
    ]
    run = Run({}, {}, [classified(number, number) for number in range(3)])
    with Bag(write(tmp_path / "bag", messages)) as bag:
        found = find_thumbnails(run, [0, 1, 2], bag.images(bag.image_topic()))
    assert found.keys() == {2}


def test_no_more_images_are_read_than_needed():
    run = Run({}, {}, [classified(number, number) for number in range(9)])
    read = []

    def images():
        for number in range(9):
            read.append(number)
            yield Frame.from_bgr(picture(number), at(number))

    assert find_thumbnails(run, [1, 3], images()).keys() == {1, 3}
    assert read == [0, 1, 2, 3]
    assert find_thumbnails(run, [], images()) == {} and len(read) == 4


positive = st.floats(1e-12, 1e12)


@settings(deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), min_size=1), st.integers(1, 10))
@example([5e-324], 1)
def test_scales_hold_their_values_and_have_ticks(values, most):
    values = np.array(values)
    for scale in (linear_scale(values), logarithmic_scale(values)):
        assert np.all((scale(values) >= 0) & (scale(values) <= 1))
        ticks = scale.ticks(most)
        assert len(ticks) <= most + 1
        assert all(scale.low <= tick * (1 + 1e-9) and tick <= scale.high * (1 + 1e-9)
                   for tick in ticks if tick > 0)  # fmt: skip
        assert ticks == sorted(ticks)
    if values.min() >= 0 and values.max() > 0:
        assert linear_scale(values).ticks(4)[-1] >= values.max() * (1 - 1e-9)


@settings(deadline=None)
@given(positive, st.booleans())
def test_time_axes_have_a_few_round_ticks(end, images):
    axis = Axis("images", 0.5, round(end) + 1.5) if images else Axis("seconds", 0.0, end)
    ticks = time_ticks(axis, 8)
    assert 1 <= len(ticks) <= 9
    assert all(axis.start <= position <= axis.end * (1 + 1e-9) for position, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)


def test_time_is_written_in_the_unit_that_suits():
    def texts(end):
        return [text for _, text in time_ticks(Axis("seconds", 0.0, end), 8)]

    assert texts(10) == ["0", "2", "4", "6", "8", "10"]
    assert texts(0.5) == ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert texts(200) == ["0:00", "0:30", "1:00", "1:30", "2:00", "2:30", "3:00"]
    assert texts(7 * 3600)[:3] == ["0:00", "1:00:00", "2:00:00"]
    axis = Axis("seconds", 0.0, 4000.0)
    assert axis.text(59.96) == "1:00.0" and axis.text(3725.04) == "1:02:05.0"
    assert Axis("seconds", 0.0, 100.0).range_text(1.234, 5.0) == "1.23 to 5.00 s"
    assert Scale(1.0, 1000.0, logarithmic=True).ticks(4) == [1, 10, 100, 1000]


@pytest.mark.parametrize("value", [0.0, -5.0, 1e-300, 1e300, float("nan"), float("inf")])
def test_odd_numbers_are_survived(tmp_path, value):
    frames = [
        FrameResult(at(0), Prediction((10**30,), (1.0,)), milliseconds={"infer": value}),
        FrameResult(Header(10**9), Prediction((1,), (0.5,)), milliseconds={"infer": 5.0}),
        FrameResult(Header(-5), Prediction((1,), (0.5,)), milliseconds={"own_stage": value}),
    ]
    write_report(Run({}, {}, frames), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "nan" not in re.sub("<(style|script)>.*?</", "", page, flags=re.DOTALL)
    assert ("own stage" in page) == np.isfinite(value)


def test_a_page_that_cannot_be_written(tmp_path):
    with pytest.raises(Efv2Error, match=r"cannot write .*nowhere.*: there is no folder"):
        write_report(drive(), tmp_path / "nowhere" / "page.html")


# The command


@pytest.fixture
def efv2(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0):
        result = CliRunner().invoke(main, [str(each) for each in arguments])
        assert result.exit_code == status, result.output
        return result.output

    return run


@pytest.fixture
def replayed(efv2, tmp_path):
    """A bag `drive` of nine images, and its results as `drive.jsonl` and `results`."""
    model = projection(tmp_path / "model.onnx")
    make(tmp_path / "drive", 9)
    efv2("replay", "drive", "--model", model, "--timings", "--jsonl", "drive.jsonl",
         "--out", "results", "--threads", 1)  # fmt: skip


@pytest.mark.numpy2
def test_command(efv2, replayed):
    for results, page in (("drive.jsonl", "drive.html"), ("results", "results.html")):
        said = efv2("report", results)
        shown = int(re.search(rf"wrote {page} \(9 images, (\d+) thumbnails, ", said)[1])
        text = Path(page).read_text()
        assert shown > 3 and text.count('src="data:image/jpeg') == shown
        for word in ("read", "infer", "/image", "sensor_msgs/msg/Image", "first stamp"):
            assert word in text
    shutil.move("drive", "elsewhere")
    assert "9 images, no thumbnails: see --bag" in efv2("report", "drive.jsonl")
    assert "data:image/jpeg" not in Path("drive.html").read_text()
    said = efv2("report", "drive.jsonl", "--bag", "elsewhere", "-o", "page.html")
    assert f"wrote page.html (9 images, {shown} thumbnails" in said
    assert Path("page.html").read_text().count("data:image/jpeg") == shown


def test_command_says_what_is_wrong(efv2, replayed, tmp_path):
    def error(*arguments, status=1):
        return efv2("report", *arguments, status=status).splitlines()[-1]

    assert "Error: there is no bag" in error("drive.jsonl", "--bag", "nowhere")
    assert "/odd; topics" not in error("drive.jsonl", "--bag", "results")
    assert "has no topic /odd" in error("drive.jsonl", "--bag", "drive", "--topic", "/odd")
    assert "cannot write no/where.html" in error("drive.jsonl", "-o", "no/where.html")
    assert "would replace" in error("drive.jsonl", "-o", "drive.jsonl", status=2)
    make(tmp_path / "other", 3, kind=lambda number, stamp: image(number, stamp + 1))
    assert "other holds none of the images" in error("drive.jsonl", "--bag", "other")
    # What nobody asked for is no error.
    shutil.rmtree("drive")
    Path("drive").mkdir()
    said = efv2("report", "drive.jsonl")
    assert "no thumbnails: nothing of drive can be read" in said and "wrote drive.html" in said


def test_the_page_replaces_nothing_that_it_is_made_from(efv2, replayed, tmp_path):
    (bag_file,), (results_file,) = (Path(each).glob("*.mcap") for each in ("drive", "results"))
    (tmp_path / "link").symlink_to(bag_file)
    for name in (bag_file, results_file, "drive/metadata.yaml", "link"):
        before = Path(name).read_bytes()
        for arguments in (["results"], ["results", "--bag", "drive"]):
            said = efv2("report", *arguments, "-o", name, status=2)
            assert "the page would replace" in said
        assert Path(name).read_bytes() == before


def test_a_page_beside_the_results_is_made_anew(efv2, replayed):
    for _ in range(2):
        assert "wrote results/page.html" in efv2("report", "results", "-o", "results/page.html")


def test_a_page_is_replaced_as_a_whole(efv2, replayed):
    Path("page.html").write_text("an older page")
    Path("link").hardlink_to("page.html")
    efv2("report", "drive.jsonl", "-o", "page.html")
    assert "an older page" not in Path("page.html").read_text()
    assert Path("link").read_text() == "an older page"


@pytest.mark.parametrize("name", ["[/x].html", "[red]:cat:.html", "back\\.html", "\udcff.html"])
def test_names_are_printed_as_they_are(efv2, replayed, name):
    Path("[").mkdir()  # so that "[/x].html" is a path
    shutil.move("drive", ":dog:[x]")
    said = efv2("report", "drive.jsonl", "--bag", ":dog:[x]", "-o", name)
    shown = name.replace("\udcff", "\\udcff")
    assert f"wrote {shown} (9 images" in said
    assert Path(name).stat().st_size
    shutil.move(":dog:[x]", "drive")
    for each in Path("drive").glob("*.mcap"):
        each.write_bytes(b"")
    assert "no thumbnails: " in efv2("report", "drive.jsonl", "-o", name)


def test_a_bag_whose_name_no_file_can_have(efv2):
    for name in ("x" * 5000, "a\0b"):
        with Path("run.jsonl").open("w") as file:
            write_jsonl(replace(drive(), info={"bag": name}), file)
        assert "wrote run.html" in efv2("report", "run.jsonl")


def test_a_recording_without_a_bag_is_named_after_the_page(efv2, tmp_path):
    with Path("run.jsonl").open("w") as file:
        write_jsonl(replace(drive(), info={}), file)
    efv2("report", "run.jsonl", "-o", "monday.html")
    assert "<title>monday</title>" in Path("monday.html").read_text()


@pytest.mark.parametrize(
    "problems", [["the bag's <end> is missing"], "the bag's <end> is missing"]
)
def test_problems_of_a_damaged_bag_are_told(tmp_path, problems):
    write_report(replace(drive(), info={"problems": problems}), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<end>" not in page and ">the bag's <end> is missing</p>" in html.unescape(page)


def test_facts_of_any_type_are_shown(tmp_path):
    info = {"problems": 3, "bag": ["a"], "topic": 7, "model": {"x": 1}, "note": {"<k>": [None]}}
    write_report(replace(drive(), info=info), tmp_path / "page.html")
    page = html.unescape((tmp_path / "page.html").read_text())
    assert '<p class="problem">3</p>' in page and "<dt><k></dt><dd>[null]</dd>" in page
