"""The node on the BPU: what it publishes, and what it makes of everything that goes wrong."""

import numpy as np
import pytest
import standins

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from talker import SOON

from efv2_ros.vision.frame import Frame, Header

pytestmark = pytest.mark.e2e

PARAMETERS = {"runtime": "libdnn", "fit": "stretch", "top_k": 3}


@pytest.fixture
def on_bpu(start, tmp_path):
    """`on_bpu(faults, model=..., **parameters)` starts a node over the stand-in."""

    def on_bpu(faults=None, model=None, wait=True, **parameters):
        path = standins.bin_model(tmp_path / "model.bin", **(model or {}))
        return start(
            {**PARAMETERS, "model_path": str(path), **parameters},
            environment=standins.environment(**(faults or {})),
            wait=wait,
            depth=1000,
        )

    return on_bpu


def publish(talker, nv12):
    height, width = nv12.shape[0] * 2 // 3, nv12.shape[1]
    talker.publish(
        Frame(Header(frame_id="camera"), "nv12", nv12.reshape(-1), height, width, width)
    )


def publish_one_by_one(talker, images):
    """Each when the one before has been classified or dropped."""
    for image in images:
        before = accounted_for(talker)
        publish(talker, image)
        assert talker.spin_until(lambda before=before: accounted_for(talker) > before, SOON)


def accounted_for(talker):
    _, values = talker.fresh_stream()
    return int(values["frames classified"]) + int(values["frames dropped"])


def assert_answers(results, images):
    for result, image in zip(results, images, strict=True):
        logits = standins.logits(image)
        best = np.argsort(logits)[::-1][:3]
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        assert [each.class_id for each in result.results] == [str(n) for n in best]
        np.testing.assert_allclose(
            [each.score for each in result.results], scores[best], rtol=1e-4
        )


@pytest.mark.parametrize("runtime", ["libdnn", "hbm", "hobot_dnn"])
def test_results_and_what_the_diagnostics_say_of_the_runtime(on_bpu, runtime):
    if runtime == "hobot_dnn" and int(np.__version__.split(".")[0]) >= 2:
        pytest.skip("needs numpy < 2")
    _, talker = on_bpu(runtime=runtime)
    images = standins.images(5)
    for n, image in enumerate(images):
        publish(talker, image)
        talker.expect_results(n + 1)
    assert_answers(talker.results, images)
    model, values = talker.fresh_model()
    assert model.level == DiagnosticStatus.OK
    assert values["runtime"].startswith(runtime)
    assert values["device"] == model.hardware_id == "BPU"


def test_slots_work_side_by_side_and_results_stay_in_order(on_bpu):
    _, talker = on_bpu({"duration_us": 2000}, model={"pitch": 256}, slots=4, queue_policy="all")
    images = standins.images(60)
    for image in images:
        publish(talker, image)
    talker.expect_results(60)
    assert_answers(talker.results, images)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"infer_error_at": 3}, "infer"),
        ({"infer_error_at": 3, "infer_error": -6000009}, "infer"),
        ({"wait_error_at": 3}, "infer"),
        ({"hang_at": 3}, "timeout"),
    ],
    ids=["infer", "task limit", "wait", "hang"],
)
def test_a_failed_inference_is_a_counted_drop_and_the_stream_goes_on(on_bpu, fault, cause):
    process, talker = on_bpu(fault, infer_timeout=0.3)
    images = standins.images(6)
    publish_one_by_one(talker, images)
    talker.expect_results(5)
    assert_answers(talker.results, images[:2] + images[3:])
    _, values = talker.fresh_stream()
    assert (values["frames dropped"], values[f"dropped: {cause}"]) == ("1", "1")
    assert talker.state() == "active"
    log = process.stop()
    assert log.count("dropped a frame") == 1
    assert process.returncode == 0


@pytest.mark.parametrize("slots", [1, 3])
def test_a_bpu_that_stops_answering_makes_the_node_unconfigured(on_bpu, slots):
    process, talker = on_bpu({"dead_at": 4}, infer_timeout=0.2, slots=slots)
    image = standins.images(1)[0]

    def until_unconfigured():
        def unconfigured():
            publish(talker, image)
            talker.spin_for(0.05)
            return talker.model.level == DiagnosticStatus.ERROR

        assert talker.wait_for_diagnostics()
        assert talker.spin_until(unconfigured, SOON), process.stop()
        assert "stopped answering" in talker.model.message
        assert talker.spin_until(lambda: talker.state() == "unconfigured", SOON)

    until_unconfigured()
    assert len(talker.results) == 3
    _, values = talker.fresh_stream()
    assert int(values["dropped: timeout"]) >= 2
    # It can be told to try again, and finds that nothing is better.
    assert talker.transition("configure")
    assert talker.transition("activate")
    assert talker.spin_until(lambda: talker.connected, SOON)
    talker.fresh_model()
    until_unconfigured()
    log = process.stop()
    assert log.count("the node becomes unconfigured") == 2
    assert "Traceback" not in log
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("faults", "model", "reason"),
    [
        ({}, {"compiler": 2}, "compiled for another chip"),
        ({}, {"width": 256}, "224x224"),
        ({"open_error": -6000006}, {}, "cannot be opened"),
        ({"alloc_error_at": 2}, {}, "out of memory"),
    ],
    ids=["compiler", "size", "open", "memory"],
)
def test_what_cannot_be_loaded_fails_configure_with_one_sentence(on_bpu, faults, model, reason):
    process, talker = on_bpu(faults, model, wait=False)
    assert talker.spin_until(talker.model_failed, SOON), process.stop()
    assert reason in talker.model.message
    assert "model.bin" in talker.model.message
    assert talker.state() == "unconfigured"
    assert "Traceback" not in process.stop()


def test_core_and_priority_change_while_images_flow(on_bpu):
    _, talker = on_bpu()
    image = standins.images(1)[0]
    publish(talker, image)
    talker.expect_results(1)
    for accepted in (talker.set(bpu_priority=255), talker.set(bpu_core=0)):
        assert accepted[0].successful
    (refused,) = talker.set(bpu_core=1)
    assert not refused.successful
    publish(talker, image)
    talker.expect_results(2)
    assert_answers(talker.results, [image, image])


def test_the_runtime_changes_while_images_flow(on_bpu):
    _, talker = on_bpu()
    image = standins.images(1)[0]
    for n, runtime in enumerate(("hbm", "libdnn"), start=1):
        (result,) = talker.set(runtime=runtime)
        assert result.successful
        assert talker.spin_until(
            lambda runtime=runtime: talker.fresh_model()[1]["runtime"].startswith(runtime), SOON
        )
        publish(talker, image)
        talker.expect_results(n)
    assert_answers(talker.results, [image] * 2)
