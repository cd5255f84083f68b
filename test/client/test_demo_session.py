"""The demo's session: photos published one by one to a classifier of its own."""

import pytest
from tiny_models import projection

from efv2_ros.classify.latency import END_TO_END, STAGES
from efv2_ros.pictures.photo import read_photo

pytest.importorskip("rclpy")

from efv2_ros.client import demo

pytestmark = [pytest.mark.e2e, pytest.mark.distros]


def test_every_photo_has_its_result(tmp_path, photos):
    model = str(projection(tmp_path / "model.onnx"))
    with demo.start({"model_path": model}) as running:
        assert running.topic.endswith("/image")
        assert running.method
        pictures = [read_photo(photo) for photo in photos]
        results = list(running.stream(pictures, len(photos) + 1, 0.01))
        summary = running.summary()
    names = [photo.name for photo in photos]
    assert [result.photo for result in results] == [*names, names[0]]
    for result in results:
        assert result.seconds > 0
        scores = [score for score, _ in result.classes]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 5
    assert set(summary.latencies) == {*STAGES, END_TO_END}
    assert summary.stream["frames classified"] == str(len(photos) + 1)
    assert summary.model["runtime"]


def test_a_node_that_cannot_classify_says_why(tmp_path):
    with (
        pytest.raises(demo.DemoError, match=r"absent\.onnx"),
        demo.start({"model_path": str(tmp_path / "absent.onnx")}),
    ):
        pass


def test_a_node_that_does_not_start_shows_what_it_printed():
    with (
        pytest.raises(demo.DemoError, match="queue_policy"),
        demo.start({"queue_policy": "sometimes"}),
    ):
        pass
