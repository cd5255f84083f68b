"""The node's main job, in its own process, over real DDS."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

import os
import threading
from array import array
from contextlib import ExitStack
from itertools import cycle, islice

import cv2
from cv_bridge import CvBridge
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from talker import SOON, values
from tiny_models import fails_on_bright, projection

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.classify.seen import seen
from efv2_ros.client.listener import Listener
from efv2_ros.node import conversions, publishers
from efv2_ros.node.classifier_node import ClassifierNode
from efv2_ros.node.transports import message_type
from efv2_ros.pictures.annotate import BgrConverter
from efv2_ros.pictures.overlay import overlay
from efv2_ros.pictures.photo import read_photo

pytestmark = [pytest.mark.e2e, pytest.mark.distros]


@pytest.fixture
def model(tmp_path):
    return str(projection(tmp_path / "model.onnx"))


def offline(model, **options):
    return Classifier(load_model(ModelRequest(model_path=model)), ViewOptions(**options))


def stamped(message, number, frame_id="camera_optical"):
    message.header.stamp.sec = 1_700_000_000 + number // 10
    message.header.stamp.nanosec = number % 10 * 100_000_000
    message.header.frame_id = frame_id
    return message


def encoded(bgr, encoding):
    """An Image message of a picture, converted by OpenCV and filled by cv_bridge."""
    height, width = bgr.shape[:2]
    if encoding in ("nv12", "nv21"):
        i420 = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420).reshape(-1)
        y, u, v = np.split(i420, [height * width, height * width * 5 // 4])
        pairs = np.stack((u, v) if encoding == "nv12" else (v, u), axis=-1).reshape(-1)
        data = np.concatenate((y, pairs))
        return Image(
            height=height, width=width, step=width, encoding=encoding, data=array("B", data)
        )
    code = {"rgb8": cv2.COLOR_BGR2RGB, "mono8": cv2.COLOR_BGR2GRAY}.get(encoding)
    picture = bgr if code is None else cv2.cvtColor(bgr, code)
    return CvBridge().cv2_to_imgmsg(picture, encoding)


def assert_same_result(result, message, frame, classifier):
    expected = classifier.classify(frame).prediction
    assert result.header == message.header
    assert [int(each.class_id) for each in result.results] == list(expected.class_ids)
    assert [each.score for each in result.results] == list(expected.scores)


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono8", "nv12", "nv21"])
def test_a_result_is_what_the_classifier_says_of_the_same_image(start, model, photos, encoding):
    _, talker = start({"model_path": model, "queue_policy": "all"})
    classifier = offline(model)
    images = []
    for number, photo in enumerate(photos * 2):
        bgr = cv2.imread(str(photo))
        bgr = bgr[: bgr.shape[0] // 2 * 2, : bgr.shape[1] // 2 * 2]
        images.append(stamped(encoded(bgr, encoding), number))
        talker.images.publish(images[-1])
        talker.expect_results(number + 1)
    for result, image in zip(talker.results, images, strict=True):
        assert_same_result(result, image, conversions.frame_from_image(image), classifier)


def test_the_photos_of_one_stream_differ(start, model, photos):
    """Guards the tests above: a constant answer would pass them all."""
    classifier = offline(model)
    answers = {classifier.classify(read_photo(photo)).prediction.class_ids for photo in photos}
    assert len(answers) == len(photos)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_compressed_images(start, model, photos, suffix):
    _, talker = start(
        {"model_path": model, "transport": "compressed", "queue_policy": "all"},
        message_type=CompressedImage,
    )
    classifier = offline(model)
    for number, photo in enumerate(photos):
        _, contents = cv2.imencode(f".{suffix}", cv2.imread(str(photo)))
        image = stamped(
            CompressedImage(
                format={"jpg": "bgr8; jpeg compressed bgr8", "png": "png"}[suffix],
                data=array("B", contents.tobytes()),
            ),
            number,
        )
        talker.images.publish(image)
        talker.expect_results(number + 1)
        frame = conversions.frame_from_compressed(image)
        assert_same_result(talker.results[-1], image, frame, classifier)


def test_results_name_what_their_ids_mean(start, model, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"thing {n}" for n in range(1000)))
    _, talker = start({"model_path": model, "labels_file": str(labels), "score_threshold": 0.25})
    (info,) = talker.label_info
    assert [(each.class_id, each.class_name) for each in info.class_map] == [
        (n, f"thing {n}") for n in range(1000)
    ]
    assert info.threshold == 0.25
    (vision,) = talker.vision_info
    assert vision.database_location == f"{talker.process.name}/label_info"
    assert vision.database_version == 1


def test_top_k_and_threshold(start, model, photos):
    _, talker = start({"model_path": model, "top_k": 3, "score_threshold": 0.01})
    frame = read_photo(photos[0])
    talker.images.publish(conversions.image_message(frame))
    talker.expect_results(1)
    expected = offline(model, top_k=3, score_threshold=0.01).classify(frame).prediction
    assert [each.score for each in talker.results[0].results] == list(expected.scores)
    assert 0 < len(expected.scores) <= 3


def test_overload_drops_old_frames_instead_of_falling_behind(start, tmp_path):
    """200 images a second into a model that takes longer than that."""
    slow = projection(tmp_path / "slow.onnx", height=1536, width=1536)
    _, talker = start({"model_path": str(slow), "threads": 1})
    picture = np.random.RandomState(0).randint(0, 256, (48, 64, 3), np.uint8)
    message = CvBridge().cv2_to_imgmsg(picture, "bgr8")
    total, results_when_sent = 600, 0
    timer_count = iter(range(total))

    def publish():
        number = next(timer_count, None)
        if number is not None:
            talker.images.publish(stamped(message, number))

    timer = talker.node.create_timer(1 / 200, publish)
    last = stamped(Image(), total - 1).header.stamp
    sent_all = lambda: message.header.stamp == last  # noqa: E731
    assert talker.spin_until(sent_all, SOON)
    talker.node.destroy_timer(timer)
    results_when_sent = len(talker.results)
    assert talker.spin_until(
        lambda: talker.results and talker.results[-1].header.stamp == last, SOON
    ), "the newest image was not classified"
    talker.spin_for(0.5)
    # A few images are in the node and in the middleware, a few results on their way; without the
    # mailbox it would be hundreds.
    assert len(talker.results) - results_when_sent <= 20
    stamps = [(each.header.stamp.sec, each.header.stamp.nanosec) for each in talker.results]
    assert stamps == sorted(stamps)
    _, values = talker.fresh_stream()
    received, classified = int(values["frames received"]), int(values["frames classified"])
    superseded = int(values["dropped: superseded"])
    assert received == classified + superseded == classified + int(values["frames dropped"])
    assert classified == len(talker.results)
    assert superseded > 0


def bad_images(good):
    """Malformed messages of every kind, and the cause each is counted under."""

    def change(**fields):
        copy = Image(
            height=good.height,
            width=good.width,
            encoding=good.encoding,
            step=good.step,
            data=good.data,
        )
        for name, value in fields.items():
            setattr(copy, name, value)
        return copy

    return [
        (change(encoding="32FC1"), "encoding"),
        (change(encoding=""), "encoding"),
        (change(height=0), "size"),
        (change(width=0, step=0), "size"),
        (change(height=2**32 - 1), "size"),
        (change(width=2**32 - 1), "size"),
        (change(step=good.step - 1), "step"),
        (change(data=array("B", good.data[:-1])), "data"),
        (change(data=array("B")), "data"),
        (change(step=2**32 - 1), "data"),
    ]


def test_a_thousand_malformed_frames_among_a_hundred_good_ones(start, model, photos):
    process, talker = start({"model_path": model, "queue_policy": "all"}, depth=2000)
    good = CvBridge().cv2_to_imgmsg(cv2.resize(cv2.imread(str(photos[0])), (64, 48)), "bgr8")
    bad = bad_images(good)
    expected = {}
    for number in range(100):
        for message, cause in islice(cycle(bad), 10):
            talker.images.publish(stamped(message, number))
            expected[cause] = expected.get(cause, 0) + 1
        talker.images.publish(stamped(good, number))
        talker.expect_results(number + 1)
    assert sum(expected.values()) == 1000
    talker.spin_for(0.5)
    assert len(talker.results) == 100
    _, values = talker.fresh_stream()
    assert values["frames received"] == "1100"
    assert values["frames classified"] == "100"
    assert {
        name.removeprefix("dropped: "): int(value)
        for name, value in values.items()
        if name.startswith("dropped: ")
    } == expected
    assert process.running
    log = process.stop()
    for cause in expected:
        assert log.count(f"dropped a frame ({cause})") == 1, log


def test_the_limit_on_compressed_images_changes_while_running(start, model, photos):
    _, talker = start(
        {"model_path": model, "transport": "compressed", "queue_policy": "all", "max_pixels": 100},
        message_type=CompressedImage,
    )
    image = CompressedImage(format="jpeg", data=array("B", photos[0].read_bytes()))
    talker.images.publish(stamped(image, 0))
    assert talker.spin_until(lambda: talker.fresh_stream()[1].get("dropped: size") == "1", SOON)
    (answer,) = talker.set(max_pixels=25_000_000)
    assert answer.successful, answer.reason
    talker.images.publish(stamped(image, 1))
    talker.expect_results(1)


def test_broken_files_among_good_compressed_images(start, model, photos):
    _, talker = start(
        {"model_path": model, "transport": "compressed", "queue_policy": "all"},
        message_type=CompressedImage,
    )
    jpeg = photos[0].read_bytes()
    broken = [
        ("jpeg", b"", "decode"),
        ("jpeg", jpeg[:100], "decode"),
        ("jpeg", b"\x00" * 1000, "decode"),
        ("32FC1; compressedDepth", jpeg, "encoding"),
        ("", jpeg, "encoding"),
    ]
    expected = {}
    for number in range(20):
        for kind, contents, cause in broken:
            image = CompressedImage(format=kind, data=array("B", contents))
            talker.images.publish(stamped(image, number))
            expected[cause] = expected.get(cause, 0) + 1
        image = CompressedImage(format="jpeg", data=array("B", jpeg))
        talker.images.publish(stamped(image, number))
        talker.expect_results(number + 1)
    _, values = talker.fresh_stream()
    assert values["frames classified"] == "20"
    assert {
        name.removeprefix("dropped: "): int(value)
        for name, value in values.items()
        if name.startswith("dropped: ")
    } == expected


def test_a_failing_inference_is_counted_and_the_stream_goes_on(start, tmp_path):
    model = fails_on_bright(tmp_path / "moody.onnx")
    parameters = {"model_path": str(model), "mean": "0,0,0", "scale": "1,1,1"}
    process, talker = start({**parameters, "queue_policy": "all"})
    for number in range(10):
        picture = np.full((48, 64, 3), 200 if number % 2 else 50, np.uint8)
        talker.images.publish(stamped(CvBridge().cv2_to_imgmsg(picture, "bgr8"), number))
    talker.expect_results(5)
    talker.spin_for(0.3)
    _, values = talker.fresh_stream()
    assert (values["frames classified"], values["dropped: infer"]) == ("5", "5")
    log = process.stop()
    assert log.count("dropped a frame (infer)") == 1
    assert "Traceback" not in log


def tenths(result):
    return (
        result.header.stamp.sec - 1_700_000_000
    ) * 10 + result.header.stamp.nanosec // 100_000_000


def test_late_images_are_dropped_and_a_restart_of_time_is_not(start, model, photos):
    _, talker = start({"model_path": model, "qos_reliability": "reliable", "qos_depth": 10})
    image = CvBridge().cv2_to_imgmsg(cv2.resize(cv2.imread(str(photos[0])), (64, 48)), "bgr8")
    kept = 0
    # Late: 99. Again from the start: 10, more than a second back, and 105, the third in a row.
    for number in (100, 101, 99, 101, 110, 10, 11, 110, 107, 108, 105, 106):
        talker.images.publish(stamped(image, number))
        if number not in (99, 107, 108):
            kept += 1
            talker.expect_results(kept)
    assert [tenths(each) for each in talker.results] == [
        100, 101, 101, 110, 10, 11, 110, 105, 106,
    ]  # fmt: skip
    _, values = talker.fresh_stream()
    assert values["dropped: stamp"] == "3"


def test_all_takes_images_as_they_come(start, model, photos):
    """A bag of less than a second, played in a loop, goes back in small steps."""
    _, talker = start({"model_path": model, "queue_policy": "all"}, depth=100)
    image = CvBridge().cv2_to_imgmsg(cv2.resize(cv2.imread(str(photos[0])), (64, 48)), "bgr8")
    sent = [100, 101, 102, 103] * 5
    for number in sent:
        talker.images.publish(stamped(image, number))
    talker.expect_results(len(sent))
    assert [tenths(each) for each in talker.results] == sent


def test_several_slots_keep_the_order(start, model, photos):
    _, talker = start({"model_path": model, "queue_policy": "all", "slots": 4}, depth=200)
    image = CvBridge().cv2_to_imgmsg(cv2.resize(cv2.imread(str(photos[0])), (64, 48)), "bgr8")
    for number in range(100):
        talker.images.publish(stamped(image, number))
        talker.spin_for(0.001)
    talker.expect_results(100)
    assert [each.header for each in talker.results] == [
        stamped(Image(), number).header for number in range(100)
    ]


def test_the_annotated_image_is_published_only_while_somebody_looks(start, model, photos):
    _, talker = start({"model_path": model})
    annotated = []
    frame = read_photo(photos[0])

    def subscribe():
        return talker.node.create_subscription(
            Image,
            f"{talker.process.name}/image_annotated",
            annotated.append,
            qos_profile_sensor_data,
        )

    image = conversions.image_message(frame)
    talker.images.publish(image)
    talker.expect_results(1)
    subscription = subscribe()

    def publish_until_seen():
        talker.images.publish(image)
        talker.spin_for(0.1)
        return bool(annotated)

    assert any(publish_until_seen() for _ in range(100))
    picture = CvBridge().imgmsg_to_cv2(annotated[-1], "bgr8")
    original = frame.data.reshape(picture.shape)
    changed = np.any(picture != original, axis=2)
    assert annotated[-1].header == image.header
    assert changed[: picture.shape[0] // 2].any()
    assert not changed[-picture.shape[0] // 3 :].any()  # text at the top, the picture below it
    talker.node.destroy_subscription(subscription)


@pytest.fixture
def in_process(ros, model):
    """A classifier in this process: `in_process()` gives a `Listener` to it."""
    with ExitStack() as stack:

        def begin(**parameters):
            namespace = f"/in_process_{os.getpid()}"
            parameters = {"model_path": model, "diagnostics_period": 0.2, **parameters}
            node = ClassifierNode(
                namespace=namespace,
                parameter_overrides=[Parameter(n, value=v) for n, v in parameters.items()],
            )
            stack.callback(node.destroy_node)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            thread = threading.Thread(target=executor.spin)
            stack.callback(thread.join)
            stack.callback(executor.shutdown, 0)
            node.start()
            thread.start()
            name = f"{namespace}/efv2_classifier"
            listener = Listener(ros.create_node("listener", namespace=namespace), name)
            stack.callback(listener.close)
            assert listener.wait_for_classifier()
            return listener

        yield begin


def test_a_result_stands_when_its_annotated_image_fails(in_process, photos, monkeypatch, capfd):
    def draw(*_):
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(BgrConverter, "__call__", draw)
    listener = in_process(queue_policy="all")
    annotated = listener.node.create_subscription(
        Image, f"{listener.classifier}/image_annotated", lambda _: None, qos_profile_sensor_data
    )
    assert listener.spin_until(annotated.get_publisher_count, SOON)
    listener.spin_for(0.5)  # the other direction of the discovery
    for number in range(3):
        listener.publish(read_photo(photos[0]))
        assert listener.wait_for_results(number + 1)
    failed = "failed: image_annotated"
    assert listener.spin_until(
        lambda: listener.stream and values(listener.stream).get(failed) == "3", SOON
    ), listener.stream
    told = values(listener.stream)
    assert (told["frames received"], told["frames classified"]) == ("3", "3")
    assert told["frames dropped"] == "0"
    log = capfd.readouterr().err
    assert log.count("image_annotated") == 1
    assert "no room for a picture" in log


OUTPUTS = {
    "label": "std_msgs/msg/String",
    "annotations": "foxglove_msgs/msg/ImageAnnotations",
    "ai_targets": "ai_msgs/msg/PerceptionTargets",
}


def listen(listener, name, received):
    """Subscribe to a topic of the classifier, and wait until it knows."""
    subscription = listener.node.create_subscription(
        message_type(OUTPUTS[name]), f"{listener.classifier}/{name}", received.append, 100
    )
    assert listener.spin_until(subscription.get_publisher_count, SOON)
    listener.spin_for(0.5)  # the other direction of the discovery


def need_interfaces():
    for package in ("foxglove_msgs", "ai_msgs"):
        pytest.importorskip(f"{package}.msg")


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_what_viewers_and_other_nodes_show(start, model, photos, tmp_path, transport):
    need_interfaces()
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"第 {n} 类" for n in range(1000)), encoding="utf-8")
    kind = {"raw": Image, "compressed": CompressedImage}[transport]
    parameters = {"model_path": model, "labels_file": str(labels), "transport": transport}
    _, talker = start({**parameters, "queue_policy": "all", "top_k": 3}, message_type=kind)
    received = {name: [] for name in OUTPUTS}
    for name, messages in received.items():
        listen(talker, name, messages)
    classifier = Classifier(
        load_model(ModelRequest(model_path=model, labels_file=str(labels))), ViewOptions(top_k=3)
    )
    expected = []
    for number, photo in enumerate(photos[:3]):
        if transport == "raw":
            image = stamped(conversions.image_message(read_photo(photo)), number)
            frame = conversions.frame_from_image(image)
        else:
            data = array("B", photo.read_bytes())
            image = stamped(CompressedImage(format="jpeg", data=data), number)
            frame = conversions.frame_from_compressed(image)
        talker.images.publish(image)
        talker.expect_results(number + 1)
        expected.append((frame, classifier.classify(frame)))
    assert talker.spin_until(lambda: all(len(each) == 3 for each in received.values()), SOON)
    for (frame, outcome), label, drawn, found in zip(expected, *received.values(), strict=True):
        best = outcome.classes[0].label
        assert label == String(data=best)
        assert best.startswith("第")
        part = seen(frame, classifier)
        assert [each.text for each in drawn.texts] == outcome.lines()
        assert drawn.texts[0].font_size == overlay(part, outcome.lines()).font_size
        stamp = drawn.texts[0].timestamp  # that of the whole is new in foxglove_msgs 3.4
        assert (stamp.sec, stamp.nanosec) == frame.header[:2]
        assert [(each.x, each.y) for each in drawn.points[0].points] == list(part.corners)
        assert found.header == conversions.header_message(frame.header)
        assert [each.type for each in found.targets] == [each.label for each in outcome.classes]
        place = found.targets[0].rois[0].rect
        assert (place.x_offset, place.y_offset) == (part.width // 2, part.height // 2)
        perfs = {each.type: each.time_ms_duration for each in found.perfs}
        assert perfs[f"{classifier.model.name}_predict_infer"] > 0
        assert len(perfs) == 5


def test_no_class_reaches_the_threshold(start, model, photos):
    need_interfaces()
    _, talker = start({"model_path": model, "score_threshold": 1.0, "fit": "stretch"})
    received = {name: [] for name in OUTPUTS}
    for name, messages in received.items():
        listen(talker, name, messages)
    talker.images.publish(conversions.image_message(read_photo(photos[0])))
    assert talker.spin_until(lambda: all(received.values()), SOON)
    (label,), (drawn,), (found,) = received.values()
    assert label.data == ""
    assert (list(drawn.texts), list(drawn.points), list(found.targets)) == ([], [], [])


@pytest.mark.parametrize(
    ("name", "used"),
    [("label", "String"), ("annotations", "seen"), ("ai_targets", "picture_size")],
)
def test_a_result_stands_when_what_goes_with_it_fails(
    in_process, photos, monkeypatch, capfd, name, used
):
    need_interfaces()

    def fail(*_, **__):
        raise MemoryError("no room for it")

    listener = in_process(queue_policy="all")
    listen(listener, name, [])
    monkeypatch.setattr(publishers, used, fail)
    for number in range(3):
        listener.publish(read_photo(photos[0]))
        assert listener.wait_for_results(number + 1)
    told = {f"failed: {name}": "3", "frames classified": "3"}  # counted one after the other
    assert listener.spin_until(
        lambda: listener.stream and told.items() <= values(listener.stream).items(), SOON
    ), listener.stream
    assert values(listener.stream)["frames dropped"] == "0"
    log = capfd.readouterr().err
    assert log.count(f"could not publish {name}") == 1
    assert "no room for it" in log
