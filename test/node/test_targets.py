"""Results as TROS's nodes exchange them."""

import itertools

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ai_msgs.msg")

from ai_msgs.msg import PerceptionTargets
from rclpy.serialization import deserialize_message, serialize_message
from tiny_models import projection

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.node.targets import TargetsMessage
from efv2_ros.pictures.photo import read_photo
from efv2_ros.vision.frame import Header

HEADER = Header(1_700_000_000, 999_000_000, "camera")
NOW_NS = 1_700_000_001_030_000_000
SECONDS = {
    "wait": 0.002, "convert": 0.001, "infer": 0.02, "postprocess": 0.0005, "publish": 0.00025,
    "end_to_end": 0.031,
}  # fmt: skip


@pytest.fixture
def outcome(tmp_path, photos):
    request = ModelRequest(model_path=str(projection(tmp_path / "m.onnx")))
    with load_model(request) as model:
        yield Classifier(model, ViewOptions(top_k=3)).classify(read_photo(photos[0]))


def made(outcome, size=(641, 480), seconds=SECONDS, rate_hz=29.6):
    """The message, as it arrives."""
    message = TargetsMessage().make(HEADER, size, outcome, seconds, NOW_NS, rate_hz)
    return deserialize_message(serialize_message(message), PerceptionTargets)


def nanoseconds(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


def test_each_class_is_a_target_in_the_middle_of_the_image(outcome):
    message = made(outcome)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == HEADER[:2]
    assert message.header.frame_id == "camera"
    assert [each.type for each in message.targets] == [each.label for each in outcome.classes]
    assert len(message.targets) == 3
    for target, (_, _, score) in zip(message.targets, outcome.classes, strict=True):
        (roi,) = target.rois
        assert roi.confidence == pytest.approx(score, rel=1e-6)
        assert (roi.rect.x_offset, roi.rect.y_offset) == (320, 240)
        assert (roi.rect.width, roi.rect.height) == (0, 0)
    assert not message.disappeared_targets


def test_the_stages_have_the_names_of_tros(outcome):
    perfs = made(outcome).perfs
    name = outcome.model.name
    assert [(each.type, each.time_ms_duration) for each in perfs] == [
        (f"{name}_preprocess", 1.0),
        (f"{name}_predict_infer", 20.0),
        (f"{name}_predict_parse", 0.5),
        (f"{name}_postprocess", 0.25),
        (f"{name}_pipeline", 31.0),
    ]
    for perf in perfs:
        took = nanoseconds(perf.stamp_end) - nanoseconds(perf.stamp_start)
        assert took == round(perf.time_ms_duration * 1e6)
    *stages, pipeline = perfs
    for stage, following in itertools.pairwise(stages):
        assert stage.stamp_end == following.stamp_start
    assert nanoseconds(stages[-1].stamp_end) == NOW_NS
    assert pipeline.stamp_start == made(outcome).header.stamp
    assert nanoseconds(pipeline.stamp_end) == NOW_NS


def test_an_image_without_a_stamp_has_no_pipeline(outcome):
    seconds = {stage: each for stage, each in SECONDS.items() if stage != "end_to_end"}
    assert not [each for each in made(outcome, seconds=seconds).perfs if "pipeline" in each.type]


@pytest.mark.parametrize(("rate_hz", "fps"), [(0, 0), (29.6, 30), (32767.4, 32767), (1e9, 32767)])
def test_the_rate_fits_its_16_bits(outcome, rate_hz, fps):
    assert made(outcome, rate_hz=rate_hz).fps == fps


def test_stages_that_began_before_time_did(outcome):
    """Under simulated time the clock starts at zero."""
    message = TargetsMessage().make(HEADER, (4, 4), outcome, SECONDS, 1_000, 1.0)
    assert nanoseconds(message.perfs[0].stamp_start) == 1_000 - 21_750_000
