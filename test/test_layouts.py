"""The layouts for Foxglove and PlotJuggler name what the node publishes."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from efv2_ros.classify.latency import END_TO_END, STAGES
from efv2_ros.classify.options import NODE, NODE_NAME

CONFIG = Path(__file__).parents[1] / "config"
FOXGLOVE = json.loads((CONFIG / "foxglove_layout.json").read_text())
TIMES = [*STAGES, END_TO_END]


def panels(layout):
    """The names of the panels in a layout, which is one or divides its space in two."""
    if isinstance(layout, str):
        return [layout]
    assert layout["direction"] in ("row", "column")
    return panels(layout["first"]) + panels(layout["second"])


def config(kind):
    return [each for name, each in FOXGLOVE["configById"].items() if name.startswith(f"{kind}!")]


def values(panel):
    return [each["value"] for each in panel["paths"]]


def test_foxglove_shows_every_panel_once():
    assert sorted(panels(FOXGLOVE["layout"])) == sorted(FOXGLOVE["configById"])


def test_foxglove_draws_on_the_cameras_image():
    (image,) = config("Image")
    assert image["imageMode"]["imageTopic"] == "/image"
    assert image["imageMode"]["annotations"] == {f"{NODE}/annotations": {"visible": True}}


def test_foxglove_shows_classes_scores_and_latencies_over_time():
    (classes,) = config("StateTransitions")
    assert values(classes) == [f"{NODE}/label.data"]
    scores, latency = config("Plot")
    assert values(scores) == [f"{NODE}/classification.results[{n}].score" for n in range(3)]
    assert values(latency) == [
        f'{NODE}/latency.status[:].values[:]{{key=="{each}"}}.value' for each in TIMES
    ]


def test_foxglove_shows_the_diagnostics():
    (summary,), (detail,) = config("DiagnosticSummary"), config("DiagnosticStatusPanel")
    assert summary["topicToRender"] == detail["topicToRender"] == "/diagnostics"
    assert detail["selectedName"] == f"{NODE_NAME}: stream"
    assert detail["selectedHardwareId"] == "BPU"  # the device of a board's runtimes


def test_plotjuggler_plots_scores_and_latencies():
    root = ElementTree.parse(CONFIG / "plotjuggler_layout.xml").getroot()
    scores, latency = (
        [curve.get("name") for curve in plot.iter("curve")] for plot in root.iter("plot")
    )
    assert scores == [f"{NODE}/classification/results[{n}]/score" for n in range(3)]
    # PlotJuggler names a value of diagnostics by its topic, its status and its key.
    assert latency == [f"{NODE}/latency/{NODE_NAME}: latency/{each}" for each in TIMES]
    colours = [curve.get("color") for curve in root.iter("curve")]
    assert all(re.fullmatch("#[0-9a-f]{6}", each) for each in colours)
