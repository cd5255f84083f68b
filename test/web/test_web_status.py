"""What the page says of a classifier: in every state something that tells what to do."""

import json

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from efv2_ros.web.status import Diagnostics, Facts, View, describe, stream_camera, stream_task

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE
)  # fmt: skip
NODE = "/robot/efv2_classifier"
COUNTS = {
    "frames received": "10", "frames classified": "7", "frames dropped": "3",
    "dropped: superseded": "2", "dropped: decode": "1", "dropped: size": "0",
    "input rate (Hz)": "29.97", "output rate (Hz)": "20.50", "image topic": "/camera/image",
}  # fmt: skip


class Clock:
    def __init__(self):
        self.now = 10.0

    def __call__(self):
        return self.now


def report(task, level=OK, message="", values=None, node=NODE):
    return DiagnosticStatus(
        name=f"{node.lstrip('/')}: {task}",
        level=level,
        message=message,
        values=[KeyValue(key=key, value=value) for key, value in (values or {}).items()],
    )


def diagnosed(*reports, clock=None):
    diagnostics = Diagnostics(NODE, clock or Clock())
    diagnostics.update(DiagnosticArray(status=list(reports)))
    return diagnostics


def described(*reports, **facts):
    diagnostics = diagnosed(*reports) if reports else Diagnostics(NODE, Clock())
    facts = {"views": {"": View("/camera/image")}, "is_there": True, **facts}
    found = describe(Facts(node=NODE, diagnostics=diagnostics, **facts))
    json.dumps(found, allow_nan=False)
    return found


def problems(found):
    return [f"{each['level']} {each['about']}: {each['text']}" for each in found["problems"]]


def problem(found, camera=0):
    each = found["cameras"][camera]["problem"]
    return f"{each['level']} {each['about']}: {each['text']}" if each else None


def test_a_node_that_works():
    found = described(
        report("stream", message="20.5 results/s", values=COUNTS),
        report("model", values={"model": "efficientformerv2_s1", "runtime": "onnx 1.23"}),
        report("board", values={"BPU load (%)": "37", "SoC temperature (C)": "61.5"}),
    )
    assert problems(found) == [] and problem(found) is None
    assert (found["model"], found["runtime"]) == ("efficientformerv2_s1", "onnx 1.23")
    assert found["board"] == [("BPU load (%)", "37"), ("SoC temperature (C)", "61.5")]
    (camera,) = found["cameras"]
    assert camera["counts"] == [["received", 10], ["classified", 7]]
    assert camera["drops"] == [["decode", 1], ["superseded", 2]]
    assert camera["rates"] == [["images in", "29.97 Hz"], ["results out", "20.50 Hz"]]
    assert found["control"] is None


@pytest.mark.parametrize(
    ("level", "message", "said"),
    [
        (OK, "unconfigured", "note Images: the node is unconfigured: it has no model loaded"),
        (OK, "configuring", "note Images: the node loads its model"),
        (OK, "inactive", f"note Images: the node is inactive and takes none: ros2 lifecycle set "
                         f"{NODE} activate"),
        (OK, "disabled", "note Images: classification is switched off: the service "
                         f"{NODE}/set_enabled switches it on"),
        (OK, "waiting for the first frame", "note Images: waiting for the first frame"),
        (STALE, "no frame for 9.0 s", "warning Images: no frame for 9.0 s"),
        (WARN, "3 frames could not be classified",
         "warning Images: 3 frames could not be classified"),
        (OK, "5.0 results/s", "warning Picture: it is no JPEG"),
    ],
)  # fmt: skip
def test_states_of_a_stream(level, message, said):
    found = described(report("stream", level, message, COUNTS), faults={"": "it is no JPEG"})
    assert problem(found) == said


def test_problems_of_the_node():
    assert problems(described(is_there=False)) == [
        f"error Node: there is no {NODE}: start it with ros2 launch efv2_ros classify.launch.py"
    ]
    assert problems(described()) == [f"note Node: waiting for the first report of {NODE}"]
    found = described(
        report("stream", OK, "unconfigured", COUNTS),
        report("model", ERROR, "there is no file x.bin"),
        report("board", WARN, "the CPU governor is schedutil"),
    )
    assert problems(found) == [
        "error Model: there is no file x.bin",
        "warning Board: the CPU governor is schedutil",
    ]


def test_a_node_that_falls_silent():
    clock = Clock()
    diagnostics = diagnosed(report("stream"), clock=clock)
    facts = Facts(node=NODE, is_there=True, diagnostics=diagnostics)
    clock.now += 4.9
    assert problems(describe(facts)) == []
    clock.now += 0.2
    assert problems(describe(facts)) == [f"error Node: {NODE} has reported nothing for 5 s"]
    # A node may report once a minute.
    clock.now = 70.0
    diagnostics.update(DiagnosticArray(status=[report("stream")]))
    clock.now += 170.0
    assert problems(describe(facts)) == []
    clock.now += 20.0
    assert problems(describe(facts)) == [f"error Node: {NODE} has reported nothing for 190 s"]


def test_reports_of_others_are_not_taken():
    diagnostics = Diagnostics(NODE)
    for node in ("/efv2_classifier", f"{NODE}2", "/robot"):
        diagnostics.update(DiagnosticArray(status=[report("stream", node=node)]))
    diagnostics.update(DiagnosticArray(status=[report("latency")]))
    assert diagnostics.silence_s is None and diagnostics.cameras() == set()
    found = described(report("stream", values={"frames received": "many"}))
    assert found["cameras"][0]["counts"] == []


def test_several_cameras():
    found = described(
        report("left stream", STALE, "no frame for 4.0 s", COUNTS),
        report("right stream", OK, "9.0 results/s", {**COUNTS, "image topic": "/r"}),
        views={"right": View("/r"), "left": View("/l")},
    )
    assert [each["name"] for each in found["cameras"]] == ["left", "right"]
    assert [each["topic"] for each in found["cameras"]] == ["/l", "/r"]
    assert problem(found, 0) == "warning Images: no frame for 4.0 s" and problem(found, 1) is None
    diagnostics = diagnosed(report("left stream", values=COUNTS), report("model"))
    assert diagnostics.cameras() == {"left"}
    assert diagnostics.topic("left") == "/camera/image" and diagnostics.topic("right") == ""


@pytest.mark.parametrize(
    ("task", "camera"),
    [("stream", ""), ("left stream", "left"), ("a b stream", "a b"), ("model", None),
     ("streams", None), ("", None)],
)  # fmt: skip
def test_names_of_streams(task, camera):
    assert stream_camera(task) == camera
    if camera is not None:
        assert stream_task(camera) == task


def test_what_the_page_may_change():
    facts = {"sizes": ["s0", "s1"], "model_size": "mine"}
    found = described(report("stream", OK, "9.0 results/s", COUNTS), **facts)
    assert found["control"] == {
        "sizes": ["s0", "s1", "mine"], "model_size": "mine", "enabled": True
    }  # fmt: skip
    found = described(report("stream", OK, "disabled", COUNTS), **facts)
    assert found["control"]["enabled"] is False
