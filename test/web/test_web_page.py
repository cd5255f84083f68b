"""The page in a real browser, beside a real node, over real DDS."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from tiny_models import mean_colour

pytest.importorskip("rclpy")
pytest.importorskip("aiohttp")

from browser import Browser

from efv2_ros.vision.frame import Frame
from efv2_ros.web.hub import Hub, Interval, Report
from efv2_ros.web.options import WebOptions
from efv2_ros.web.server import WebServer

pytestmark = pytest.mark.e2e

SOON = 30.0  # seconds: only reached when something is broken
NAMES = ["red thing", "a <b>green</b> & long label", "蓝色"]
RED, GREEN = (0, 40, 200), (30, 180, 20)
"""Colours of pictures, BGR."""


@contextmanager
def serving(classifier, *options, ignores_sigint=False, port=0):
    """`efv2 web` in a process of its own; its address, and the process."""
    trap = 'trap "" INT; ' if ignores_sigint else ""
    command = [
        sys.executable, "-m", "efv2_ros.cli", "web", "--classifier", classifier,
        "--port", str(port), *options,
    ]  # fmt: skip
    process = subprocess.Popen(
        ["sh", "-c", f'{trap}exec "$0" "$@"', *command],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("the page is at http://"), line + process.stderr.read()
        yield line.split()[-1], process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def troubles(browser):
    """What goes wrong in the page during a test."""
    browser.troubles.clear()
    yield browser.troubles
    browser.show("about:blank")


@pytest.fixture
def classifier(start, tmp_path):
    """Start a classifier whose classes are the three primary colours."""
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(NAMES))
    model = str(mean_colour(tmp_path / "model.onnx"))

    def start_it(options=None, **start_options):
        parameters = {"model_path": model, "labels_file": str(labels), "fit": "stretch"}
        return start({**parameters, **(options or {})}, **start_options)

    return start_it


class Camera:
    """Publishes one colour at 20 Hz from a thread, until the block ends."""

    def __init__(self, talker):
        self._talker = talker
        self.colour = RED
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._done.set()
        self._thread.join()

    def _run(self):
        while not self._done.wait(0.05):
            self._talker.publish(Frame.from_bgr(np.full((48, 64, 3), self.colour, np.uint8)))


def expected(talker):
    """The rows of the page for the newest result."""
    talker.results.clear()
    talker.expect_results(1)
    return [
        [NAMES[int(each.class_id)], f"{100 * each.score:.1f} %"]
        for each in talker.results[-1].results
    ]


ROWS = """[...document.querySelectorAll(".best li:not([hidden])")].map((row) => ({
  text: [row.querySelector(".label").textContent, row.querySelector(".score").textContent],
  share: row.querySelector(".bar").getBoundingClientRect().width
    / row.querySelector(".track").getBoundingClientRect().width,
}))"""
TEXT = "document.body.innerText"
PIXEL = """(() => {
  const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  copy.drawImage(document.querySelector("canvas"), 0, 0);
  return [...copy.getImageData(32, 10, 1, 1).data];
})()"""


def says(text):
    return f"{TEXT}.includes({json.dumps(text)})"


def test_the_page_shows_what_the_node_sees(browser, troubles, classifier):
    process, talker = classifier()
    with serving(process.name) as (url, web), Camera(talker) as camera:
        talker.spin_for(1.5)
        assert talker.images.get_subscription_count() == 1  # nobody looks
        assert os.getpriority(os.PRIO_PROCESS, web.pid) > 0  # the node comes first
        browser.show(url)
        for camera.colour in (RED, GREEN):
            rows = expected(talker)
            found = json.dumps([row[0] for row in rows])
            browser.wait_for(f"JSON.stringify(({ROWS}).map(({{text}}) => text[0])) === "
                             f"JSON.stringify({found})", lambda: talker.spin_for(0.1))  # fmt: skip
            assert [each["text"] for each in browser.evaluate(ROWS)] == rows
            time.sleep(0.4)  # the bars move to their place
            for each in browser.evaluate(ROWS):
                share = float(each["text"][1].split()[0]) / 100
                assert each["share"] == pytest.approx(share, abs=0.01)
            browser.wait_for(f"Math.abs(({PIXEL})[1] - {camera.colour[1]}) < 12")
            assert browser.evaluate(PIXEL)[:3] == pytest.approx(camera.colour[::-1], abs=12)
        assert talker.images.get_subscription_count() == 2
        talker.wait_for_diagnostics()
        # The line of FPS comes last: it is a mean over some seconds.
        for shown in ("connected", "model on onnx", talker.images.topic_name, "infer", "FPS"):
            browser.wait_for(says(shown), lambda: talker.spin_for(0.1))
        text = browser.evaluate(TEXT)
        assert re.search(r"received\s+\d+", text) and not re.search(r"no node|Node", text)
        names = browser.evaluate("[...document.querySelectorAll('.legend span')]"
                                 ".map((each) => each.textContent)")  # fmt: skip
        assert set(names) == {NAMES[0], NAMES[1]}
        stretches = browser.evaluate("""[...document.querySelectorAll(".band rect")].map((each) =>
            [each.getAttribute("class"), Number(each.getAttribute("width"))])""")
        assert len({name for name, _ in stretches}) == 2  # first the one, then the other
        assert sum(width for _, width in stretches) > 15
        for row in ("fps", "stage-infer", "stage-convert"):
            line = f"document.querySelector('.{row} path').getAttribute('d')"
            browser.wait_for(f"{line}.length > 120")
            path = browser.evaluate(line)
            points = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", path), float)
            assert len(points) > 5 and points[-1, 0] > 980
            assert (points[:, 1] >= 0).all() and (points[:, 1] <= 34).all()
        assert browser.evaluate("document.querySelectorAll('.legend b, .best b').length") == 0
        # Nobody may change anything.
        assert browser.evaluate("document.getElementById('control').hidden")
        assert troubles == []
        browser.show("about:blank")
        assert talker.spin_until(lambda: talker.images.get_subscription_count() == 1, SOON)
        begin = time.monotonic()
        web.send_signal(signal.SIGINT)
        _, error = web.communicate(timeout=SOON)
        assert (web.returncode, error) == (0, "")
        assert time.monotonic() - begin < 5.0  # it takes a second


class Reported:
    """Reports what a test says instead of a node."""

    def __init__(self):
        self.status = {
            "node": "/robot/eye",
            "problems": [{"level": "warning", "about": "Board", "text": "the <b>CPU</b> is slow"}],
            "model": "efficientformerv2_s1", "runtime": "hbm_runtime 3.0",
            "board": [("BPU load (%)", "37"), ("SoC temperature (C)", "61.5"),
                      ("CPU governor", "schedutil")],
            "control": None,
            "cameras": [
                {"name": name, "topic": f"/{name}/image", "problem": None,
                 "rates": [["images in", "29.97 Hz"]], "counts": [["received", 12345]],
                 "drops": [["decode", 2], ["superseded", 1234]]}
                for name in ("left", "right")
            ],
        }  # fmt: skip
        self.intervals = {
            "left": Interval(6, tuple((f"class {n}", 0.5**n) for n in range(1, 6)),
                             {"infer": 5.25, "end_to_end": 31.0}),
            "right": Interval(0),
        }  # fmt: skip

    def watch(self, on):
        pass

    def collect(self):
        return Report(self.status, self.intervals)


@contextmanager
def served(source):
    """The page of a source, in a thread; its address."""
    found, ready, done = [], threading.Event(), threading.Event()

    async def serve():
        hub = Hub(source)
        server = WebServer(WebOptions(port=0), hub, source)
        found.append(f"http://127.0.0.1:{await server.start()}/")
        ready.set()
        while not done.is_set():
            _, file = cv2.imencode(".jpg", np.full((45, 80, 3), (90, 60, 40), np.uint8))
            hub.show("left", file.tobytes())
            hub.show("right", b"no picture")
            await asyncio.sleep(0.05)
        await server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(SOON)
    try:
        yield found[0]
    finally:
        done.set()
        thread.join()


def test_everything_that_is_reported_is_on_the_page(browser, troubles):
    source = Reported()
    with served(source) as url:
        browser.show(url, 1400)
        browser.wait_for("document.querySelectorAll('.camera').length === 2")
        browser.wait_for("document.querySelector('canvas').width === 80")
        for selector, expected_texts in {
            "#problems li": ["Board: the <b>CPU</b> is slow"],
            "#board dt": ["BPU load", "SoC temperature", "CPU governor"],
            "#board dd": ["37 %", "61.5 °C", "schedutil"],
            "h2": ["left/left/image", "right/right/image"],
            "#model": ["efficientformerv2_s1 on hbm_runtime 3.0"],
            ".camera:first-child .label": [f"class {n}" for n in range(1, 6)],
            ".camera:first-child .counts dt": [
                "received", "images in", "dropped: decode", "dropped: superseded"
            ],
            ".camera:first-child .counts dd": ["12,345", "29.97 Hz", "2", "1,234"],
        }.items():  # fmt: skip
            texts = f"[...document.querySelectorAll('{selector}')].map((each) => each.textContent)"
            assert browser.evaluate(texts) == expected_texts, selector
        first = "document.querySelector('.camera .row:not([hidden]).stage-infer .readout')"
        assert browser.evaluate(f"{first}.textContent") == "5.25 ms"
        assert browser.evaluate("document.title") == "robot/eye"
        # The right camera has no results, and its pictures are none.
        right = "document.querySelectorAll('.camera')[1]"
        assert browser.evaluate(f"{right}.querySelectorAll('.best li:not([hidden])').length") == 0
        assert browser.evaluate(f"{right}.querySelector('.blank').hidden") is False
        assert browser.evaluate(f"{right}.matches('.stale')")
        # More classes than colours: the most frequent ones have them.
        for number in range(12):
            source.intervals["left"] = Interval(1, ((f"many {number}", 1.0),))
            time.sleep(0.25)
        left = "document.querySelector('.camera')"
        browser.wait_for(f"{left}.querySelectorAll('.legend span').length === 8")
        assert browser.evaluate(f"{left}.querySelectorAll('.legend .class-other').length") == 0
        assert browser.evaluate(f"{left}.querySelectorAll('.band .class-other').length") > 0
        source.status = {**source.status, "problems": [], "cameras": source.status["cameras"][1:]}
        source.intervals = {"right": Interval(0)}
        browser.wait_for("document.querySelectorAll('.camera').length === 1")
        assert browser.evaluate("document.querySelector('h2').textContent") == "right/right/image"
        assert browser.evaluate("document.querySelectorAll('#problems li').length") == 0
        assert troubles == []


def test_several_cameras_are_on_one_page(browser, troubles, classifier):
    process, talker = classifier({"cameras": "left,right"}, wait=False, topic="left/image")
    with serving(process.name) as (url, _), Camera(talker):
        browser.show(url)
        first, second = (f"document.querySelectorAll('.camera')[{n}]" for n in range(2))
        browser.wait_for(f"{second} && {first}.querySelectorAll('.best li:not([hidden])').length")
        browser.wait_for(f"{first}.querySelector('canvas').width === 64")
        namespace = process.name.rpartition("/")[0]
        for camera, name in ((first, "left"), (second, "right")):
            title = browser.evaluate(f"{camera}.querySelector('h2').textContent")
            assert title == f"{name}{namespace}/{name}/image"
        assert browser.evaluate(f"{first}.querySelector('.label').textContent") == NAMES[0]
        browser.wait_for(f"{second}.querySelector('.problem').textContent.includes('frame')")
        assert browser.evaluate(f"{second}.querySelector('.blank').hidden") is False
        assert troubles == []


def test_it_fits_every_screen_by_day_and_by_night(browser, troubles, classifier):
    process, talker = classifier()
    with serving(process.name) as (url, _), Camera(talker):
        papers = {}
        for width, scheme in ((1400, "light"), (1400, "dark"), (390, "dark"), (320, "light")):
            browser.show(url, width, 844, scheme)
            browser.wait_for(f"({ROWS}).length === 3 && {says('infer')}")
            assert browser.evaluate("innerWidth") == width
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            papers[scheme] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
            boxes = browser.evaluate("""[...document.querySelectorAll(
                "canvas, .best li, .row:not([hidden]), .key div, h1, h2, footer")]
                .filter((each) => each.getClientRects().length)
                .map((each) => [each.getBoundingClientRect().left,
                  each.getBoundingClientRect().right, each.scrollWidth - each.clientWidth])""")
            assert len(boxes) > 10
            for left, right, hidden in boxes:
                assert left >= 0 and right <= width and hidden <= 1
        assert papers == {"light": "rgb(255, 255, 255)", "dark": "rgb(14, 17, 22)"}
    assert troubles == []


def test_it_says_what_is_missing_and_comes_back_by_itself(browser, troubles, classifier):
    process, talker = classifier()
    with serving(process.name) as (url, web):
        browser.show(url)
        browser.wait_for(says("Images: no frame for"), lambda: talker.spin_for(0.05))
        assert browser.evaluate("document.querySelector('.blank').hidden") is False
        talker.transition("deactivate")
        browser.wait_for(says("the node is inactive"), lambda: talker.spin_for(0.05))
        talker.transition("cleanup")
        browser.wait_for(says("it has no model loaded"), lambda: talker.spin_for(0.05))
        assert troubles == []
        web.kill()
        browser.wait_for(says("the server is away"))
        process.stop()
    port = int(url.rstrip("/").rpartition(":")[2])
    with serving(process.name, port=port):
        browser.wait_for(says(f"there is no {process.name}"))
        assert browser.evaluate("document.body.dataset.link") == "live"
    assert not [each for each in troubles if "exceptionDetails" in each]


def test_the_page_changes_the_node_where_it_is_allowed(browser, troubles, classifier):
    process, talker = classifier()
    token = "a token of the test"
    with (
        serving(process.name, "--allow-control", "--token", token) as (url, _),
        Camera(talker),
    ):
        browser.show(url.replace("TOKEN", token.replace(" ", "%20")))
        browser.wait_for(f"({ROWS}).length === 3 && {says('classify')}")
        assert browser.evaluate("location.search") == ""
        browser.call("Page.reload")  # by the cookie
        browser.wait_for(f"({ROWS}).length === 3 && {says('classify')}")
        browser.evaluate("document.getElementById('enabled').click()")
        browser.wait_for(says("classification is switched off"), lambda: talker.spin_for(0.05))
        assert browser.evaluate("document.getElementById('enabled').checked") is False
        browser.evaluate("document.getElementById('enabled').click()")
        browser.wait_for(f"!{says('classification is switched off')}")
        browser.wait_for("document.getElementById('size').value === 's0'")
        browser.evaluate("""{ const size = document.getElementById('size'); size.value = 'cards';
            size.dispatchEvent(new Event('change', { bubbles: true })); }""")
        browser.wait_for("document.getElementById('answer').textContent === 'done'")
        assert talker.get("model_size") == "cards"
        assert troubles == []


@pytest.mark.parametrize("ignores_sigint", [False, True])
def test_it_ends_by_signals_without_a_node_and_with_viewers(browser, ros, ignores_sigint):
    with serving("/no_such_node", ignores_sigint=ignores_sigint) as (url, web):
        browser.show(url)
        browser.wait_for(says("there is no /no_such_node"))
        web.send_signal(signal.SIGINT)
        if ignores_sigint:
            time.sleep(0.3)
            assert web.poll() is None
            web.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        _, error = web.communicate(timeout=SOON)
        assert (web.returncode, error) == (0, "")
        assert time.monotonic() - begin < 5.0
    browser.show("about:blank")
