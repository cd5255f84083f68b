"""Lifecycle, parameters, the live change of models, diagnostics and warnings of the node."""

import json
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from cv_bridge import CvBridge
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import SetParameters
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from talker import SOON, as_messages
from tiny_models import projection

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.node import conversions

pytestmark = [pytest.mark.e2e, pytest.mark.distros]

FILES = "efficientformerv2_{}_deploy.onnx"


@pytest.fixture
def models(tmp_path):
    """A model folder with different small networks under the catalog's names."""
    folder = tmp_path / "models"
    folder.mkdir()
    for seed, size in enumerate(("s0", "s1", "s2")):
        projection(folder / FILES.format(size), seed=seed)
    return folder


@pytest.fixture
def picture():
    random = np.random.RandomState(0)
    return CvBridge().cv2_to_imgmsg(random.randint(0, 256, (48, 64, 3), np.uint8), "bgr8")


def numbered(image, number):
    image.header.stamp = Time(sec=1000 + number)
    return image


def answer(folder, size, image):
    classifier = Classifier(load_model(ModelRequest(size, model_path=str(folder))))
    return classifier.classify(conversions.frame_from_image(image)).prediction


def scores(result):
    return tuple(each.score for each in result.results)


def test_the_model_changes_without_losing_or_mislabelling_a_frame(start, models, picture):
    environment = {"EFV2_MODEL_DIR": str(models)}
    _, talker = start({"queue_policy": "all"}, environment=environment, depth=1000)
    expected = {size: answer(models, size, picture).scores for size in ("s0", "s1", "s2")}
    assert len(set(expected.values())) == 3
    sent = 0

    def stream(until):
        nonlocal sent
        end = sent + 2000
        while not until() and sent < end:
            talker.images.publish(numbered(picture, sent))
            sent += 1
            talker.spin_for(0.005)

    def seen(size):
        return bool(talker.results) and scores(talker.results[-1]) == expected[size]

    stream(lambda: seen("s0") and sent > 20)
    for size in ("s1", "s2", "s0"):
        (result,) = talker.set(model_size=size)
        assert result.successful, result.reason
        stream(lambda wanted=size: seen(wanted))
        before = sent
        stream(lambda before=before: sent > before + 20)
    talker.expect_results(sent)

    assert [each.header.stamp.sec for each in talker.results] == [1000 + n for n in range(sent)]
    names = {value: size for size, value in expected.items()}
    answers = [names[scores(each)] for each in talker.results]  # KeyError: a mixture of two
    runs = [size for n, size in enumerate(answers) if n == 0 or answers[n - 1] != size]
    assert runs == ["s0", "s1", "s2", "s0"]
    methods = [each.method for each in talker.vision_info]
    assert [method[-2:] for method in methods] == ["s0", "s1", "s2", "s0"]


def test_a_change_to_a_model_that_is_not_there_is_refused(start, models, picture):
    (models / FILES.format("s1")).unlink()
    _, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    (result,) = talker.set(model_size="s1")
    assert not result.successful
    assert FILES.format("s1") in result.reason
    assert "efv2 models fetch s1" in result.reason
    (result,) = talker.set(model_size="s9")
    assert not result.successful
    assert "s9" in result.reason
    assert talker.get("model_size") == "s0"
    talker.images.publish(picture)
    talker.expect_results(1)


def test_a_model_that_does_not_load_leaves_the_old_one_running(start, models, picture):
    projection(models / FILES.format("s1"), height=96, width=96, classes=7)
    _, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    talker.set(model_size="s1")
    assert talker.spin_until(
        lambda: talker.model and talker.model.level == DiagnosticStatus.WARN, SOON
    )
    assert "s1" in talker.model.message
    assert talker.spin_until(lambda: talker.get("model_size") == "s0", SOON)
    talker.images.publish(picture)
    talker.expect_results(1)
    assert scores(talker.results[0]) == answer(models, "s0", picture).scores


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (None, "efv2 models fetch s0"),
        (b"", "empty"),
        (b"<!doctype html><html></html>", "web page"),
        (b"\x08\x06\x12\x03abc", "efficientformerv2_s0_deploy.onnx"),
    ],
)
def test_without_a_good_model_configure_fails_with_one_sentence(start, tmp_path, contents, reason):
    folder = tmp_path / "models"
    folder.mkdir()
    if contents is not None:
        (folder / FILES.format("s0")).write_bytes(contents)
    process, talker = start({}, environment={"EFV2_MODEL_DIR": str(folder)}, wait=False)
    assert talker.spin_until(talker.model_failed, SOON), process.stop()
    assert reason in talker.model.message
    assert str(folder) in talker.model.message
    assert talker.state() == "unconfigured"
    projection(folder / FILES.format("s0"))
    assert talker.transition("configure")
    assert talker.transition("activate")
    log = process.stop()
    assert log.count("cannot configure") == 1
    assert process.returncode == 0


def test_lifecycle(start, models, picture):
    process, talker = start(
        {"autostart": False}, environment={"EFV2_MODEL_DIR": str(models)}, wait=False
    )
    assert talker.state() == "unconfigured"
    stream, _ = talker.fresh_stream()
    assert (stream.level, stream.message) == (DiagnosticStatus.OK, "unconfigured")
    for _ in range(2):
        assert talker.transition("configure")
        assert talker.state() == "inactive"
        assert talker.images.get_subscription_count() == 0
        assert talker.transition("activate")
        assert talker.spin_until(lambda: talker.images.get_subscription_count() == 1, SOON)
        talker.results.clear()
        talker.images.publish(picture)
        talker.expect_results(1)
        assert talker.transition("deactivate")
        assert talker.spin_until(lambda: talker.images.get_subscription_count() == 0, SOON)
        assert talker.transition("cleanup")
    assert talker.transition("unconfigured_shutdown")
    assert talker.state() == "finalized"
    process.stop()
    assert process.returncode == 0


def test_a_node_that_ran_untrained_takes_the_real_model(start, tmp_path, picture):
    folder = tmp_path / "late"
    folder.mkdir()
    _, talker = start({"allow_untrained": True}, environment={"EFV2_MODEL_DIR": str(folder)})
    projection(folder / FILES.format("s0"))
    assert talker.transition("deactivate")
    assert talker.transition("cleanup")
    assert talker.transition("configure")
    assert talker.transition("activate")
    model, values = talker.fresh_model()
    assert model.level == DiagnosticStatus.OK
    assert values["model"] == "efficientformerv2_s0"


def test_a_configure_that_fails_half_way_says_why_and_can_be_repeated(start, models):
    process, talker = start(
        {},
        environment={"EFV2_MODEL_DIR": str(models)},
        remappings={"~/label_info": "~/classification"},  # two types on one topic
        wait=False,
    )
    assert talker.spin_until(talker.model_failed, SOON), process.stop()
    for _ in range(2):
        model, _ = talker.fresh_model()
        assert model.level == DiagnosticStatus.ERROR
        assert model.message
        assert talker.state() == "unconfigured"
        assert not talker.transition("configure")
    assert process.stop().count("cannot configure") == 3


def test_parameters_after_the_end(start, models):
    process, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    assert talker.transition("active_shutdown")
    (result,) = talker.set(top_k=3)
    assert result.successful
    stream, _ = talker.fresh_stream()
    assert stream.message == "finalized"
    assert process.running


def test_a_newer_wish_is_not_undone_by_an_older_one_that_fails(start, models, picture):
    projection(models / FILES.format("s1"), height=96, width=96, classes=7)
    _, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    wishes = [*as_messages({"model_size": "s1"}), *as_messages({"model_size": "s2"})]
    results = talker.call(SetParameters, "set_parameters", parameters=wishes).results
    assert all(each.successful for each in results)
    assert talker.spin_until(lambda: talker.vision_info[-1].method.endswith("s2"), SOON)
    talker.spin_for(0.5)
    assert talker.get("model_size") == "s2"
    model, _ = talker.fresh_model()
    assert model.level == DiagnosticStatus.OK
    talker.images.publish(picture)
    talker.expect_results(1)
    assert scores(talker.results[0]) == answer(models, "s2", picture).scores


def test_a_problem_is_over_with_the_next_change_that_works(start, models):
    projection(models / FILES.format("s1"), height=96, width=96, classes=7)
    _, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    talker.set(model_size="s1")
    assert talker.spin_until(
        lambda: talker.model and talker.model.level == DiagnosticStatus.WARN, SOON
    )
    assert talker.spin_until(lambda: talker.get("model_size") == "s0", SOON)
    model, _ = talker.fresh_model()
    assert model.level == DiagnosticStatus.WARN  # the way back does not hide it
    talker.set(top_k=3)
    assert talker.spin_until(lambda: talker.model.level == DiagnosticStatus.OK, SOON)


def test_frames_still_in_work_when_stopped_are_counted(start, models, picture):
    """Every image that was received is accounted for, however the node is stopped."""
    _, talker = start({"queue_policy": "all"}, environment={"EFV2_MODEL_DIR": str(models)})
    for number in range(20):
        talker.images.publish(numbered(picture, number))
    talker.expect_results(1)
    assert talker.transition("deactivate")
    assert talker.transition("cleanup")
    talker.spin_for(0.3)
    _, values = talker.fresh_stream()
    assert int(values["frames received"]) == len(talker.results) + int(values["frames dropped"])
    assert int(values["frames classified"]) == len(talker.results)


def test_set_enabled(start, models, picture):
    _, talker = start({"stale_after": 0.3}, environment={"EFV2_MODEL_DIR": str(models)})
    response = talker.enable(False)
    assert response.success
    assert talker.spin_until(lambda: talker.images.get_subscription_count() == 0, SOON)
    talker.spin_for(0.5)
    stream, _ = talker.fresh_stream()
    assert (stream.level, stream.message) == (DiagnosticStatus.OK, "disabled")
    assert talker.enable(True).success
    assert talker.spin_until(lambda: talker.images.get_subscription_count() == 1, SOON)
    talker.images.publish(picture)
    talker.expect_results(1)


def test_enabled_and_active_are_two_things(start, models):
    _, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    subscriptions = talker.images.get_subscription_count
    talker.enable(False)
    assert talker.transition("deactivate")
    assert talker.transition("activate")
    talker.spin_for(0.5)
    assert subscriptions() == 0
    assert talker.fresh_stream()[0].message == "disabled"
    assert talker.transition("deactivate")
    talker.enable(True)
    talker.spin_for(0.5)
    assert subscriptions() == 0
    assert talker.transition("activate")
    assert talker.spin_until(lambda: subscriptions() == 1, SOON)


def test_new_labels_and_thresholds_are_announced(start, models, tmp_path):
    _, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    talker.set(score_threshold=0.5)
    assert talker.spin_until(lambda: talker.label_info[-1].threshold == 0.5, SOON)
    assert talker.spin_until(lambda: len(talker.vision_info) == 2, SOON)
    assert talker.vision_info[-1].database_version == 1
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"thing {n}" for n in range(1000)))
    talker.set(labels_file=str(labels))
    assert talker.spin_until(lambda: talker.vision_info[-1].database_version == 2, SOON)
    assert talker.spin_until(
        lambda: talker.label_info[-1].class_map[0].class_name == "thing 0", SOON
    )


def test_labels_of_every_kind_and_of_a_wrong_number(start, models, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    process, talker = start(
        {"labels_file": str(few)}, environment={"EFV2_MODEL_DIR": str(models)}, wait=False
    )
    assert talker.spin_until(talker.model_failed, SOON), process.stop()
    assert "few.txt has 2 names, but the model has 1000 classes" in talker.model.message
    assert talker.state() == "unconfigured"
    few.write_text("\n".join(f"thing {n}" for n in range(1000)))
    assert talker.transition("configure")
    assert talker.transition("activate")
    kinds = {
        "map.json": json.dumps({n: f"map.json {n}" for n in range(1000)}),
        "list.json": json.dumps([["n0", f"list.json {n}"] for n in range(1000)]),
        "list.yaml": "\n".join(f"- list.yaml {n}" for n in range(1000)),
    }
    for file, text in kinds.items():
        (tmp_path / file).write_text(text)
        talker.set(labels_file=str(tmp_path / file))

        def is_announced(name=f"{file} 7"):
            return talker.label_info[-1].class_map[7].class_name == name

        assert talker.spin_until(is_announced, SOON), file


def test_latencies_are_of_the_running_model(start, models, picture):
    _, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    talker.images.publish(picture)
    talker.expect_results(1)
    assert any("infer" in key for key in talker.fresh_stream()[1])
    talker.set(model_size="s1")
    assert talker.spin_until(lambda: len(talker.vision_info) == 2, SOON)
    assert not any("p50" in key for key in talker.fresh_stream()[1])


def test_the_period_of_diagnostics_changes(start, models):
    _, talker = start({"diagnostics_period": 60.0}, environment={"EFV2_MODEL_DIR": str(models)})
    talker.set(diagnostics_period=0.1)
    assert talker.wait_for_diagnostics(SOON)
    talker.set(diagnostics_period=60.0)
    assert not talker.wait_for_diagnostics(2.0)


def test_deactivating_publishes_what_is_in_work(start, models, picture):
    _, talker = start({"queue_policy": "all"}, environment={"EFV2_MODEL_DIR": str(models)})
    for number in range(20):
        talker.images.publish(numbered(picture, number))
    talker.expect_results(1)
    assert talker.transition("deactivate")
    talker.spin_for(0.3)
    assert "dropped: inactive" not in talker.fresh_stream()[1]


def test_parameters_describe_themselves(start, models):
    _, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    fit = talker.describe("fit")
    assert fit.type == ParameterType.PARAMETER_STRING
    assert "crop" in fit.description
    assert "one of: crop, letterbox, stretch" in fit.additional_constraints
    (span,) = talker.describe("top_k").integer_range
    assert (span.from_value, span.to_value) == (1, 1000)
    (reals,) = talker.describe("score_threshold").floating_point_range
    assert (reals.from_value, reals.to_value) == (0.0, 1.0)
    assert talker.describe("autostart").read_only


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("fit", "squeeze", "crop, letterbox, stretch"),
        ("roi", "1,2,3", "x,y,width,height"),
        ("roi", "0,0,0,9", "empty"),
        ("mean", "1,2", "three numbers"),
        ("top_k", 0, "top_k"),
        ("slots", 2, "while unconfigured"),
        ("queue_policy", "all", "while unconfigured"),
        ("transport", "compressed", "while unconfigured"),
        ("qos_reliability", "reliable", "while unconfigured"),
        ("qos_depth", 5, "while unconfigured"),
        ("runtime", "gpu", "onnx"),
        ("autostart", False, "read-only"),
        ("fit", 3, ""),
        ("model_path", "x" * 5000, "cannot look for the model"),
    ],
)
def test_parameters_that_cannot_be(start, models, name, value, reason):
    _, talker = start({}, environment={"EFV2_MODEL_DIR": str(models)})
    before = talker.get(name)
    (result,) = talker.set(**{name: value})
    assert not result.successful
    assert reason in result.reason
    assert talker.get(name) == before


def test_options_change_while_running(start, models, picture):
    _, talker = start({"queue_policy": "all"}, environment={"EFV2_MODEL_DIR": str(models)})
    talker.images.publish(numbered(picture, 0))
    talker.expect_results(1)
    assert len(talker.results[0].results) == 5
    assert all(each.successful for each in talker.set(top_k=2, fit="stretch", roi="0,0,32,32"))

    def changed():
        talker.images.publish(numbered(picture, len(talker.results)))
        talker.spin_for(0.05)
        first, last = scores(talker.results[0]), scores(talker.results[-1])
        return len(last) == 2 and last[0] != first[0]

    # One request, yet rclpy sets each by itself: they take effect one after the other.
    assert any(changed() for _ in range(100))
    assert all(each.successful for each in talker.set(roi="0,0,65,32"))

    def dropped():
        talker.images.publish(numbered(picture, 500))
        talker.spin_for(0.05)
        return talker.stream and "dropped: roi" in {v.key for v in talker.stream.values}

    assert any(dropped() for _ in range(100))


def test_a_wrong_value_at_start_is_one_sentence(start):
    process, talker = start({"top_k": "many"}, wait=False)
    assert talker.spin_until(lambda: not process.running, SOON)
    log = process.stop()
    assert process.returncode == 2
    assert "top_k" in log
    assert "Traceback" not in log


def test_diagnostics_of_a_stream(start, models, picture):
    _, talker = start({"stale_after": 8.0}, environment={"EFV2_MODEL_DIR": str(models)})
    stream, _ = talker.fresh_stream()
    assert stream.level == DiagnosticStatus.OK
    assert "waiting" in stream.message
    for _ in range(20):
        picture.header.stamp = talker.node.get_clock().now().to_msg()
        talker.images.publish(picture)
        talker.spin_for(0.02)
    stream, values = talker.fresh_stream()
    assert stream.level == DiagnosticStatus.OK
    assert stream.name == f"{talker.process.name.lstrip('/')}: stream"
    assert int(values["frames classified"]) > 0
    assert float(values["input rate (Hz)"]) > 0
    for stage in ("wait", "convert", "infer", "postprocess", "publish", "end_to_end"):
        p50, p95, p99, most = map(float, values[f"{stage} p50/p95/p99/max (ms)"].split(" / "))
        assert 0 <= p50 <= p95 <= p99 <= most
    assert talker.spin_until(
        lambda: talker.stream is not None and talker.stream.level == DiagnosticStatus.STALE, SOON
    )
    assert "no frame for" in talker.stream.message
    model, values = talker.fresh_model()
    assert model.level == DiagnosticStatus.OK
    assert values["runtime"].startswith("onnx ")
    assert len(values["file sha256"]) == 64
    assert values["file"] == str(models / FILES.format("s0"))


def test_simulated_time_decides_what_is_stale(start, models, picture):
    _, talker = start(
        {"use_sim_time": True, "stale_after": 2.0}, environment={"EFV2_MODEL_DIR": str(models)}
    )
    stream, _ = talker.fresh_stream()
    assert (stream.level, "/clock" in stream.message) == (DiagnosticStatus.WARN, True)
    clock = talker.node.create_publisher(Clock, "/clock", 10)
    assert talker.spin_until(lambda: clock.get_subscription_count() > 0, SOON)

    def tick(seconds):
        clock.publish(Clock(clock=Time(sec=seconds)))
        talker.spin_for(0.05)

    def level_at(seconds):
        tick(seconds)
        talker.spin_for(0.3)
        return talker.fresh_stream()[0].level

    level_at(1000)
    for n in range(10):
        tick(1001 + n)
        picture.header.stamp = Time(sec=1000 + n)
        talker.images.publish(picture)
        talker.expect_results(n + 1)
    time.sleep(2.5)  # a paused bag: no simulated time goes by
    assert level_at(1010) == DiagnosticStatus.OK
    _, values = talker.fresh_stream()
    assert 0.5 < float(values["input rate (Hz)"]) < 1.5
    assert 0.5 < float(values["output rate (Hz)"]) < 1.5
    p50, *_ = map(float, values["end_to_end p50/p95/p99/max (ms)"].split(" / "))
    assert p50 == pytest.approx(1000, abs=1)
    assert level_at(1020) == DiagnosticStatus.STALE
    assert level_at(500) == DiagnosticStatus.OK  # played again from the start


def test_untrained_is_said_everywhere(start, picture):
    process, talker = start({"allow_untrained": True})
    assert "untrained" in talker.vision_info[0].method
    assert all("untrained" in each.class_name for each in talker.label_info[0].class_map)
    model, values = talker.fresh_model()
    assert model.level == DiagnosticStatus.WARN
    assert "untrained" in model.message
    assert "untrained" in values["model"]
    talker.images.publish(picture)
    talker.expect_results(1)
    assert "untrained" in process.stop()


def test_a_topic_without_publisher_is_warned_of_once_with_the_fix(start, models, ros):
    process, talker = start(
        {}, environment={"EFV2_MODEL_DIR": str(models)}, remappings={"image": "elsewhere"},
        wait=False,
    )  # fmt: skip
    assert talker.spin_until(lambda: bool(talker.vision_info), SOON)
    talker.spin_for(5.0)
    log = process.stop()
    assert log.count("nobody publishes") == 1
    assert talker.images.topic_name in log


def test_the_wrong_type_is_warned_of_with_the_fix(start, models):
    process, talker = start(
        {}, environment={"EFV2_MODEL_DIR": str(models)}, message_type=CompressedImage, wait=False
    )
    assert talker.spin_until(lambda: bool(talker.vision_info), SOON)
    talker.spin_for(5.0)
    assert process.stop().count("transport:=compressed") == 1


def test_incompatible_qos_is_warned_of_once_with_the_fix(start, models):
    process, talker = start(
        {"qos_reliability": "reliable"},
        environment={"EFV2_MODEL_DIR": str(models)},
        reliability=ReliabilityPolicy.BEST_EFFORT,
        wait=False,
    )
    assert talker.spin_until(lambda: bool(talker.vision_info), SOON)
    talker.spin_for(2.0)
    log = process.stop()
    assert log.count("offers an incompatible") == 1
    assert "qos_reliability:=best_effort" in log


def test_enabling_that_fails_is_an_answer(start, models):
    process, talker = start(
        {"autostart": False},
        environment={"EFV2_MODEL_DIR": str(models)},
        remappings={"image": "~/label_info"},  # two types on one topic
        wait=False,
    )
    assert talker.enable(False).success
    assert talker.transition("configure")
    assert talker.transition("activate")
    response = talker.enable(True)
    assert not response.success
    assert "cannot subscribe" in response.message
    assert talker.state() == "active"
    assert process.running
