"""`efv2 bench`: what it counts, relates and draws is right, whatever the speed of this machine."""

import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import standins
from tiny_models import mean_colour

from efv2_ros.benchmark import baseline, plots, synthetic
from efv2_ros.benchmark.frames import picture
from efv2_ros.benchmark.interleave import interleaved
from efv2_ros.benchmark.parts import PARTS, BenchOptions, run
from efv2_ros.benchmark.report import Column, Distribution, Part, Report, Table
from efv2_ros.errors import Efv2Error
from efv2_ros.runtimes.base import ImageInput, RunOptions
from efv2_ros.vision.pixels import pixel_format, view

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def bench(tmp_path):
    """Run `efv2 bench --quick`; what it did, and its JSON."""

    def bench(*arguments, status=0, hidden=(), **settings):
        file = tmp_path / "report.json"
        for module in hidden:
            (tmp_path / f"{module}.py").write_text(f"raise ImportError('no {module} here')")
        environment = standins.environment(**settings)
        environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
        command = [sys.executable, "-m", "efv2_ros.cli", "bench", "--quick", "--json", str(file)]
        done = subprocess.run(
            [*command, *map(str, arguments)],
            env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        report = file.read_text() if file.exists() else ""
        return done, json.loads(report) if report else None

    return bench


def rows_of(report, part, table=0):
    return report["parts"][part]["tables"][table]["rows"]


def check_counts(row):
    """Every image that was published is accounted for."""
    dropped = sum(row["dropped_frames"].values())
    assert row["published_frames"] == row["lost_frames"] + dropped + row["classified_frames"]
    assert row["lost_frames"] >= 0
    assert row["classified_frames"] > 0
    assert set(row["dropped_frames"]) <= {"superseded"}


# The report


def test_a_table_is_aligned_markdown_and_plain_values():
    table = Table(
        "Speed",
        (Column("what", "what"), Column("speed_fps", "FPS", ".1f"), Column("lost", "lost")),
        [
            {"what": "a", "speed_fps": 12.34, "lost": {"late": 2, "cut": 1}, "raw_ms": 81.0},
            {"what": "longer", "speed_fps": 1234.0, "lost": {}, "raw_ms": 0.8},
        ],
        "Read it.",
    )
    assert table.markdown().splitlines() == [
        "### Speed",
        "",
        "| what   |    FPS | lost          |",
        "| ------ | -----: | ------------- |",
        "| a      |   12.3 | late 2, cut 1 |",
        "| longer | 1234.0 | 0             |",
        "",
        "Read it.",
    ]
    values = json.loads(json.dumps(table.as_dict()))
    assert values["title"] == "Speed"
    assert values["rows"][0] == {
        "what": "a", "speed_fps": 12.34, "lost": {"late": 2, "cut": 1}, "raw_ms": 81.0,
    }  # fmt: skip


def test_a_report_says_what_could_not_be_measured_and_fails_only_without_any_figure():
    table = Table("T", (Column("x", "x"),), [{"x": "y"}])
    parts = {"good": Part([table]), "bad": Part(problem="no camera")}
    report = Report({"cpu": "fast"}, parts)
    assert not report.failed
    assert "- cpu: fast" in report.markdown()
    assert "## bad\n\nNot measured: no camera" in report.markdown()
    assert report.as_dict()["parts"]["bad"] == {"problem": "no camera"}
    assert Report({}, {"bad": parts["bad"]}).failed


# What things are measured with


def test_contenders_take_turns_and_get_every_input():
    calls = []

    def contender(name):
        return lambda value: calls.append((name, value))

    times = interleaved(
        [contender("a"), contender("b")],
        range(5),
        0.0,
        fewest=10,
        prepare=lambda value: value + 100,
    )
    assert times.shape == (2, 10)
    assert (times > 0).all()
    timed = calls[2:]  # each was called once before
    assert [value for _, value in timed] == [100 + number % 5 for number in range(20)]
    assert [name for name, _ in timed[:6]] == ["a", "b", "b", "a", "a", "b"]


def test_durations_belong_to_their_contender_and_not_to_what_goes_before():
    slow, fast = interleaved(
        [lambda _: time.sleep(0.02), lambda _: None], [None], 0.0, fewest=9,
        prepare=lambda _: time.sleep(0.02),
    )  # fmt: skip
    assert slow.min() >= 20
    assert np.median(fast) < 20


def test_results_that_are_not_later_than_the_one_before_are_counted():
    pytest.importorskip("rclpy")
    from efv2_ros.benchmark.stream import count_disordered

    assert count_disordered(np.array([1, 2, 5])) == 0
    assert count_disordered(np.array([1, 3, 3, 2, 4])) == 2


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono8", "nv12", "bayer_rggb8", "jpeg"])
def test_pictures_are_frames_of_their_encoding(encoding):
    frame = picture(encoding, 64, 48)
    assert np.array_equal(frame.data, picture(encoding, 64, 48).data)
    if encoding != "jpeg":
        assert view(frame, pixel_format(frame)).shape[1] == 64
    assert baseline.to_nv12(baseline.source(frame), encoding, 32, 32).shape == (48, 32)


def test_the_recipe_is_limited_bt601_with_the_chroma_of_the_top_left_pixel():
    bgr = picture("bgr8", 64, 48).data.reshape(48, 64, 3)
    b, g, r = np.moveaxis(bgr.astype(float), 2, 0)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    u, v = (b - luma) / 1.772, (r - luma) / 1.402
    nv12 = baseline.to_nv12(bgr, "bgr8", 64, 48).astype(float)
    assert np.abs(nv12[:48] - (16 + luma * 219 / 255)).max() <= 1.5
    pairs = nv12[48:].reshape(24, 32, 2)
    assert np.abs(pairs[..., 0] - (128 + u * 224 / 255)[::2, ::2]).max() <= 1.5
    assert np.abs(pairs[..., 1] - (128 + v * 224 / 255)[::2, ::2]).max() <= 1.5
    assert np.array_equal(baseline.to_nv12(bgr[..., ::-1].copy(), "rgb8", 64, 48), nv12)


def test_the_recipes_best_classes_are_those_of_a_float_softmax():
    logits = np.random.RandomState(0).normal(0, 3, 1000).astype(np.float32)
    exact = np.exp(logits.astype(float))
    exact /= exact.sum()
    found = baseline.top_k(logits)
    assert found.class_ids == tuple(np.argsort(-exact)[:5])
    assert found.scores == pytest.approx(exact[list(found.class_ids)], rel=1e-5)


# The publisher


@pytest.mark.e2e
def test_every_image_has_the_stamp_of_its_moment_and_all_are_counted():
    pytest.importorskip("rclpy")
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import Image

    from efv2_ros.benchmark.publisher import publish_steadily
    from efv2_ros.node import conversions

    frame = picture("nv12", 64, 48)
    sent, moments, ended = [], [], threading.Event()

    def publish(image):
        moments.append(time.time_ns())
        sent.append(deserialize_message(image, Image))
        if len(sent) == 20:
            ended.set()

    serialized = bytearray(serialize_message(conversions.image_message(frame)))
    begin = time.time_ns()
    published = publish_steadily(publish, serialized, 500.0, ended)
    assert published.frames == len(sent) == 20
    assert published.seconds >= 19 / 500
    stamps = [each.header.stamp.sec * 10**9 + each.header.stamp.nanosec for each in sent]
    for before, stamp, after in zip([begin, *moments], stamps, moments, strict=False):
        assert before <= stamp <= after
    assert {bytes(each.data) for each in sent} == {frame.data.tobytes()}
    assert (sent[0].encoding, sent[0].width, sent[0].height) == ("nv12", 64, 48)


@pytest.mark.e2e
def test_images_arrive_over_dds_as_they_were_published(ros):
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    from efv2_ros.benchmark.publisher import Camera, CameraProcess

    node = ros.create_node("camera_listener")
    images = []
    begin = time.time_ns()
    node.create_subscription(Image, "/benchmark_camera_test", images.append, QoSProfile(depth=500))
    # Larger than the shared memory that Fast DDS has of its own accord.
    # So slow that DDS need not replace any of the five that it keeps, on a busy machine either.
    camera = Camera(10.0, width=960, height=544, reliable=True)
    with CameraProcess(camera, "/benchmark_camera_test") as process:
        end = time.monotonic() + 30
        while len(images) < 15 and time.monotonic() < end:
            ros.spin_once(node, timeout_sec=0.1)
        published = process.stop()
    while len(images) < published.frames and time.monotonic() < end:
        ros.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    assert len(images) == published.frames >= 15
    stamps = [each.header.stamp.sec * 10**9 + each.header.stamp.nanosec for each in images]
    assert begin < stamps[0]
    assert (np.diff(stamps) > 0).all()
    assert stamps[-1] < time.time_ns()
    assert bytes(images[-1].data) == picture("nv12", 960, 544).data.tobytes()


@pytest.mark.e2e
def test_a_camera_nobody_looks_at_ends_when_it_is_told_to():
    pytest.importorskip("rclpy")
    from efv2_ros.benchmark.publisher import Camera, CameraProcess

    with (
        CameraProcess(Camera(100.0), "/nobody_listens") as process,
        pytest.raises(Efv2Error, match="publisher"),
    ):
        process.stop()


# The synthetic device


class Clock:
    """A time that passes only in `sleep`."""

    def __init__(self):
        self.time = 100.0
        self.slept = []

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds


def test_a_task_starts_when_it_is_submitted_or_when_the_device_is_free():
    clock = Clock()
    device = synthetic.SerialDevice(2.0, clock.now, clock.sleep)
    assert device.run() == 102.0
    clock.time = 110.0  # idle meanwhile
    assert device.run() == 112.0
    assert clock.slept == [2.0, 2.0]
    # Two that are submitted while the device is busy end one after the other.
    ends, asleep = [], threading.Barrier(3)
    clock.sleep = None
    device = synthetic.SerialDevice(2.0, clock.now, lambda seconds: asleep.wait())
    threads = [threading.Thread(target=lambda: ends.append(device.run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    asleep.wait(30)  # both sleep at once: neither keeps the other from submitting
    for thread in threads:
        thread.join()
    assert sorted(ends) == [114.0, 116.0]


def test_tasks_that_oversleep_do_not_delay_the_device():
    clock = Clock()

    def oversleep(seconds):
        clock.sleep(seconds + 0.5)

    device = synthetic.SerialDevice(2.0, clock.now, oversleep)
    device.run()
    assert (device.run(), clock.time) == (104.5, 105.0)  # submitted late, so it starts late
    clock.time = 103.0  # as if it had been submitted while the other was at work
    assert device.run() == 106.5


def test_the_synthetic_runtime_has_slots_and_the_same_logits_each_time(tmp_path):
    image = ImageInput()
    runtime = synthetic.load(synthetic.model_file(tmp_path), image, RunOptions(slots=3))
    assert runtime.slots == 3
    runtime = synthetic.load(synthetic.model_file(tmp_path), image, RunOptions(slots=1))
    nv12 = np.zeros(image.nv12_shape, np.uint8)
    first, second = runtime.infer(nv12), runtime.infer(nv12)
    assert first.shape == (1000,)
    assert np.array_equal(first, second)
    assert first is not second


# The command


def test_parts_that_need_what_is_not_here_are_left_out_with_the_reason(bench):
    done, report = bench("--part", "postprocess", "--part", "device", hidden=["rclpy"])
    assert "no rclpy here" in report["parts"]["device"]["problem"]
    assert "Not measured: no rclpy here" in done.stdout
    assert [row["caches"] for row in rows_of(report, "postprocess")] == ["cold", "warm"]
    environment = report["environment"]
    assert environment["rmw"] == "none"
    assert environment["numpy"] == np.__version__
    assert environment["cores"] >= 1
    assert set(environment) >= {
        "cpu", "os", "python", "opencv", "ros_distro", "runtime", "date_utc", "efv2_ros",
    }  # fmt: skip


@pytest.mark.e2e
def test_it_fails_when_nothing_could_be_measured(bench):
    pytest.importorskip("rclpy")
    done, report = bench("--part", "node", "--part", "overload", status=1)
    for part in ("node", "overload"):
        assert "efv2 models fetch s0" in report["parts"][part]["problem"]
        assert "\n" not in report["parts"][part]["problem"]
    assert done.stdout.count("Not measured") == 2


def test_postprocessing_is_related_to_the_recipe(bench, tmp_path):
    markdown = tmp_path / "report.md"
    done, report = bench("--part", "postprocess", "--seconds", 0.05, "--markdown", markdown)
    for row in rows_of(report, "postprocess"):
        assert row["ratio"] == pytest.approx(row["baseline_us"] / row["top_k_us"])
        assert row["rounds"] >= 3
    assert markdown.read_text() == done.stdout
    assert "## postprocess" in done.stdout
    assert "postprocess" in done.stderr  # progress does not mix with the tables


def test_conversion_is_related_to_the_recipe_for_every_encoding_and_size(bench, tmp_path):
    _, report = bench("--part", "conversion", "--seconds", 0.01, "--plots", tmp_path / "plots")
    arrived, cold = report["parts"]["conversion"]["tables"]
    rows = [*arrived["rows"], *cold["rows"]]
    encodings = ["bgr8", "rgb8", "mono8", "yuv422_yuy2", "nv12", "bayer_rggb8", "jpeg"]
    assert [(row["encoding"], row["size"]) for row in rows] == [
        (encoding, size) for encoding in encodings for size in ("640x480", "1280x720")
    ] * 2
    for row in rows:
        assert row["plain_ratio"] == pytest.approx(row["baseline_us"] / row["plain_us"])
        for name in ("plain", "antialias"):
            assert row[f"{name}_share"] == pytest.approx(row[f"{name}_us"] / row["baseline_us"])
        assert row["antialias_ratio"] == pytest.approx(row["baseline_us"] / row["antialias_us"])
    # What lies in no cache takes many images; one that was just copied is one.
    assert {row["images"] for row in arrived["rows"]} == {1}
    assert all(row["images"] >= 4 for row in cold["rows"])
    assert (tmp_path / "plots" / "conversion.png").read_bytes().startswith(PNG)


@pytest.mark.e2e
def test_every_way_of_receiving_is_related_to_the_typed_subscription(bench, tmp_path):
    _, report = bench("--part", "transport", "--seconds", 0.2)
    rows = rows_of(report, "transport")
    ways = [
        f"{subscription}, malloc {memory}"
        for subscription in ("typed", "serialized")
        for memory in ("as it is", "keeps memory")
    ]
    assert [(row["size"], row["way"]) for row in rows] == [
        (size, way) for size in ("640x480", "1920x1080") for way in ways
    ]
    for n, row in enumerate(rows):
        baseline = rows[n // 4 * 4]
        assert row["cpu_ratio"] == pytest.approx(row["cpu_ms"] / baseline["cpu_ms"])
        assert row["images"] == {"640x480": 12, "1920x1080": 5}[row["size"]]
        assert 0 < row["p50_ms"] <= row["p99_ms"]
    # Counts, not times: 6 MB are 1,519 pages, and a typed image is copied more than once.
    typed, kept = rows[4], rows[7]
    assert typed["page_faults"] > 3000
    assert kept["page_faults"] < 300


@pytest.mark.e2e
def test_the_nodes_throughput_and_overhead_are_shares_of_the_bare_models(bench, tmp_path):
    pytest.importorskip("rclpy")
    model = standins.bin_model(tmp_path / "EfficientFormerv2_s0_224x224_nv12.bin")
    slots = ("--slots", 1, "--slots", 2)
    _, report = bench("--part", "node", "--model", model, *slots, duration_us=20_000)
    rows = rows_of(report, "node")
    assert [row["slots"] for row in rows] == [1, 2]
    for row in rows:
        check_counts(row)
        assert row["ratio"] == pytest.approx(row["node_fps"] / row["bare_fps"])
        assert row["loop_ratio"] == pytest.approx(row["node_fps"] / row["loop_fps"])
        # A device that takes 20 ms; no machine can be faster.
        assert 0 < row["bare_fps"] <= 50 * 1.001
        assert 0 < row["node_fps"] <= 50 * 1.2
        assert row["published_frames"] > row["classified_frames"]
        assert row["wait_ms"] > 0
    overhead = {row["median"]: row for row in rows_of(report, "node", 1)}
    bare = overhead["infer in a bare loop (baseline)"]["ms"]
    for row in overhead.values():
        assert row["ratio"] == pytest.approx(row["ms"] / bare)
    assert overhead["infer in the node"]["ms"] >= 20 * 0.99
    stages = ("convert", "postprocess", "publish")
    assert overhead["node overhead: convert, postprocess, publish"]["ms"] == pytest.approx(
        sum(overhead[stage]["ms"] for stage in stages)
    )


@pytest.mark.e2e
def test_the_node_is_given_the_model_that_was_asked_for(bench, tmp_path):
    pytest.importorskip("rclpy")
    folder = tmp_path / 'somebody\'s "own" models'
    folder.mkdir()
    model = mean_colour(folder / "m.onnx", height=64, width=96)
    own = ["--model", model, "--mean", "1,2,3", "--scale", "0.1,0.1,0.1"]
    _, report = bench("--part", "node", *own, "--seconds", 0.3)
    check_counts(*rows_of(report, "node"))


@pytest.mark.e2e
def test_an_overloaded_node_accounts_for_every_image_and_answers(bench, tmp_path):
    pytest.importorskip("rclpy")
    folder = tmp_path / "plots"
    own = ["--untrained", "--runtime", "onnx", "--threads", 1]
    _, report = bench("--part", "overload", *own, "--plots", folder)
    (row,) = rows_of(report, "overload")
    check_counts(row)
    assert row["slots"] == 1
    assert row["dropped_frames"]["superseded"] > 0
    assert row["answers"] >= 1
    assert 0 < row["answer_p50_ms"] <= row["answer_max_ms"]
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    for name in ("p50", "p99"):
        assert row[f"{name}_ratio"] == pytest.approx(row[f"{name}_ms"] / row["infer_ms"])
    assert row["limit_ms"] == pytest.approx(3 * row["infer_ms"] + 1e3 / row["rate_hz"])
    assert (folder / "overload.png").read_bytes().startswith(PNG)


@pytest.mark.e2e
def test_the_synthetic_device_is_the_limit_and_keeps_the_order(bench):
    pytest.importorskip("rclpy")
    _, report = bench("--part", "device")
    rows = rows_of(report, "device")
    assert [row["slots"] for row in rows] == [1, 2]
    for row in rows:
        check_counts(row)
        assert row["device_fps"] == pytest.approx(198.41, abs=0.01)
        assert row["ratio"] == pytest.approx(row["node_fps"] / row["device_fps"])
        assert row["disordered_results"] == 0


@pytest.mark.e2e
def test_cameras_in_one_node_are_related_to_as_many_nodes(bench):
    pytest.importorskip("rclpy")
    _, report = bench("--part", "cameras")
    rows = rows_of(report, "cameras")
    assert [(row["cameras"], row["nodes"]) for row in rows] == [(1, 1), (1, 1), (2, 2), (2, 1)]
    for apart, together in (rows[:2], rows[2:]):
        assert apart["memory_ratio"] == apart["cpu_ratio"] == 1
        for key in ("cpu_percent", "rss_mb"):
            ratio = "cpu_ratio" if key == "cpu_percent" else "memory_ratio"
            assert together[ratio] == pytest.approx(together[key] / apart[key])
        for row in (apart, together):
            assert 0 < row["least_fps"] <= row["total_fps"] / row["cameras"]
            assert 0 < row["pss_mb"] <= row["rss_mb"]
    assert rows[3]["memory_ratio"] < 0.8


@pytest.mark.e2e
def test_a_start_is_related_to_that_of_the_smallest_node(bench):
    pytest.importorskip("rclpy")
    _, report = bench("--part", "start", "--untrained", "--runtime", "onnx")
    smallest, classifier = rows_of(report, "start")
    for row in (smallest, classifier):
        assert 0 < row["model_s"] < row["result_s"]
        assert 0 < row["rest_anonymous_mb"] < row["rest_mb"]
    assert smallest["rest_mb"] < classifier["rest_mb"]
    imports = {row["package"]: row for row in rows_of(report, "start", 1)}
    assert {"efv2_ros", "rclpy", "numpy"} <= imports.keys()
    assert 0 < sum(row["share"] for row in imports.values()) <= 1


def test_imports_are_added_up_by_package():
    pytest.importorskip("rclpy")
    from efv2_ros.benchmark.start import by_package

    lines = [
        "import time: self [us] | cumulative | imported package",
        "import time:       100 |        100 |     numpy.core",
        "import time:        20 |        120 |   numpy",
        "import time:         3 |        123 | efv2_ros.node",
        "a warning of somebody",
    ]
    assert by_package(lines) == {"numpy": 120, "efv2_ros": 3}


def test_the_synthetic_runtime_is_unknown_to_everybody_else(bench):
    done, _ = bench("--runtime", "synthetic", status=2)
    assert "'synthetic'" in done.stderr


def test_a_part_that_fails_is_told_in_its_first_line(monkeypatch):
    said = []

    def fail(options):
        raise Efv2Error("the node did not start\nits last words")

    monkeypatch.setattr("efv2_ros.benchmark.postprocess.run", fail)
    report = run(BenchOptions(on_notice=said.append), ["postprocess", "postprocess"])
    assert report.parts["postprocess"].problem == "the node did not start"
    assert "its last words" in said[-1]
    assert "postprocess" in PARTS


# Plots


def test_plots_are_pictures_of_every_part_that_has_distributions(tmp_path):
    pytest.importorskip("matplotlib")
    series = {"baseline": np.linspace(1, 2, 100), "node": np.linspace(2, 3, 50)}
    parts = {
        "one": Part(distributions=[Distribution("latency", {"all": np.ones(3)})]),
        "five": Part(distributions=[Distribution(f"no. {n}", series, {"limit": 4.0})
                                    for n in range(5)]),
        "none": Part(problem="no camera"),
    }  # fmt: skip
    written = plots.write(Report({}, parts), tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["one.png", "five.png"]
    for path in written:
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size > 10_000
    with pytest.raises(Efv2Error, match="cannot write the plots"):
        plots.write(Report({}, parts), written[0])


def test_what_is_missing_for_plots_is_said_before_anything_is_measured(bench, tmp_path):
    done, report = bench(
        "--part", "postprocess", "--plots", tmp_path / "plots", hidden=["matplotlib"], status=1
    )
    assert "pip install matplotlib" in done.stderr
    assert report is None
    assert done.stdout == ""
