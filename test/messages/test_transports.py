"""Serialized messages read where they lie, against rclpy's own reading of the same bytes."""

import struct
import sys
from array import array

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")
pytest.importorskip("hbm_img_msgs")  # of D-Robotics' TROS; scripts/env generates it

from builtin_interfaces.msg import Time
from hbm_img_msgs.msg import HbmMsg480P, HbmMsg540P, HbmMsg1080P
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header as HeaderMessage
from talker import SOON
from tiny_models import projection

from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.messages.cdr import CdrReader
from efv2_ros.messages.images import IMAGE_TYPES, compressed_frame, image_frame
from efv2_ros.node import conversions
from efv2_ros.node.transports import TRANSPORTS, TransportError
from efv2_ros.vision.frame import FrameError

HBM = {"hbmem_480p": HbmMsg480P, "hbmem_540p": HbmMsg540P, "hbmem_1080p": HbmMsg1080P}


class Writer:
    """A CDR writer that owes nothing to the reader; `order` is `<` or `>`."""

    def __init__(self, order):
        self.order = order
        self.bytes = bytearray()

    def put(self, kind, *numbers):
        size = struct.calcsize(kind)
        for number in numbers:
            self.bytes += bytes(-len(self.bytes) % size)
            self.bytes += struct.pack(self.order + kind, number)

    def put_string(self, text):
        encoded = text.encode() + b"\0"
        self.put("I", len(encoded))
        self.bytes += encoded

    def put_header(self, header):
        self.put("i", header.stamp.sec)
        self.put("I", header.stamp.nanosec)
        self.put_string(header.frame_id)

    def message(self):
        return bytes((0, self.order == "<", 0, 0)) + bytes(self.bytes)


def written(message, order):
    writer = Writer(order)
    if isinstance(message, Image):
        writer.put_header(message.header)
        writer.put("I", message.height, message.width)
        writer.put_string(message.encoding)
        writer.put("B", message.is_bigendian)
        writer.put("I", message.step, len(message.data))
        writer.bytes += message.data.tobytes()
    elif isinstance(message, CompressedImage):
        writer.put_header(message.header)
        writer.put_string(message.format)
        writer.put("I", len(message.data))
        writer.bytes += message.data.tobytes()
    else:
        writer.put("i", message.index, message.time_stamp.sec)
        writer.put("I", message.time_stamp.nanosec)
        writer.put("I", message.height, message.width, message.data_size, message.step)
        writer.bytes += message.encoding.tobytes() + message.data.tobytes()
    return writer.message()


def assert_same(frame, expected):
    assert frame.header == expected.header
    for name in ("encoding", "height", "width", "step", "is_bigendian"):
        assert getattr(frame, name) == getattr(expected, name), name
        assert type(getattr(frame, name)) is type(getattr(expected, name)), name
    assert frame.data.dtype == np.uint8
    assert np.array_equal(frame.data, expected.data)


def assert_padded_alike(written, real):
    """The writer above is right: only padding differs, in which Fast CDR leaves what was there."""
    assert len(real) == len(written)
    assert all(a in (b, 0) for a, b in zip(written, real, strict=True))


uint32 = st.integers(0, 2**32 - 1)
# rclpy cannot send what is no UTF-8 or has a NUL in it; bytes of others' making come below.
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
headers = st.builds(
    HeaderMessage,
    stamp=st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=uint32),
    frame_id=text,
)
data = st.binary(max_size=50).map(lambda content: array("B", content))
images = st.builds(
    Image, header=headers, height=uint32, width=uint32, encoding=text,
    is_bigendian=st.integers(0, 255), step=uint32, data=data,
)  # fmt: skip
files = st.builds(
    CompressedImage,
    header=headers,
    format=st.sampled_from(["jpeg", "png", "bgr8; jpeg compressed bgr8", "rgb8;png", "JPG"]),
    data=data,
)
orders = pytest.mark.parametrize("order", ["<", ">"])


@orders
@given(message=images)
@settings(deadline=None)
def test_an_image_is_what_rclpy_reads(order, message):
    serialized = written(message, order)
    if order == "<":
        assert_padded_alike(serialized, serialize_message(message))
    expected = conversions.frame_from_image(deserialize_message(serialized, Image))
    assert_same(image_frame(serialized), expected)


@orders
@given(message=files)
@settings(deadline=None)
def test_a_compressed_image_is_what_rclpy_reads(order, message):
    serialized = written(message, order)
    if order == "<":
        assert_padded_alike(serialized, serialize_message(message))
    expected = conversions.frame_from_compressed(deserialize_message(serialized, CompressedImage))
    assert_same(compressed_frame(serialized), expected)


def hbm(kind, encoding="nv12", height=48, width=64, data_size=None, step=64, seed=0):
    random = np.random.RandomState(seed)
    message = kind(
        index=7,
        time_stamp=Time(sec=1_700_000_000 + seed, nanosec=seed),
        height=height,
        width=width,
        step=step,
        data_size=height * width * 3 // 2 if data_size is None else data_size,
    )
    message.encoding = np.frombuffer(encoding.encode().ljust(12, b"\0"), np.uint8).copy()
    message.data[: 48 * 64 * 3] = random.randint(0, 256, 48 * 64 * 3, np.uint8)
    return message


@orders
@pytest.mark.parametrize("transport", HBM)
def test_a_shared_memory_image_is_what_rclpy_reads(order, transport):
    kind = HBM[transport]
    assert TRANSPORTS[transport].message_type() is kind
    for message in (hbm(kind), hbm(kind, "abcdefghijkl", step=0, seed=3), kind()):
        serialized = written(message, order)
        if order == "<":
            assert serialize_message(message) == serialized
        expected = conversions.frame_from_hbm(deserialize_message(serialized, kind), "here")
        frame = IMAGE_TYPES[transport].frame(serialized, "here")
        assert_same(frame, expected)
        assert frame.header.frame_id == "here"
        assert frame.data.size == message.data_size
        fields = message.height, message.width, message.step, message.time_stamp.sec
        assert (frame.height, frame.width, frame.step, frame.header.sec) == fields
    assert message.data.size == kind.MAX_SIZE


def test_nothing_is_copied():
    image = Image(height=2, width=2, step=6, encoding="bgr8", data=array("B", range(12)))
    for message, kind, view in (
        (image, Image, image_frame),
        (CompressedImage(format="png", data=array("B", range(9))), CompressedImage,
         compressed_frame),
        (hbm(HbmMsg480P), HbmMsg480P,
         lambda serialized: IMAGE_TYPES["hbmem_480p"].frame(serialized, "")),
    ):  # fmt: skip
        serialized = serialize_message(message)
        frame = view(serialized)
        assert np.shares_memory(frame.data, np.frombuffer(serialized, np.uint8)), kind
        assert not frame.data.flags.writeable


SMALL = {
    "raw": (
        Image(height=2, width=1, step=3, encoding="bgr8", data=array("B", range(6))),
        image_frame,
    ),
    "compressed": (
        CompressedImage(format="png", data=array("B", range(9))),
        compressed_frame,
    ),
    "hbmem_480p": (
        hbm(HbmMsg480P),
        lambda serialized: IMAGE_TYPES["hbmem_480p"].frame(serialized, ""),
    ),
}


@orders
@pytest.mark.parametrize("transport", SMALL)
def test_every_truncation_is_an_error(order, transport):
    message, view = SMALL[transport]
    whole = written(message, order)
    view(whole)
    for length in (*range(min(len(whole), 60)), len(whole) - 1):
        with pytest.raises(FrameError) as caught:
            view(whole[:length])
        assert caught.value.fault == "message"


@orders
@pytest.mark.parametrize("length", [15, 99, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("field", ["frame_id", "encoding", "data"])
def test_lying_lengths(order, field, length):
    writer = Writer(order)
    writer.put("I", 0, 0)
    for name in ("frame_id", "encoding", "data"):
        if name == "encoding":
            writer.put("I", 2, 1)
        elif name == "data":
            writer.put("B", 0)
            writer.put("I", 3)
        writer.put("I", length if name == field else 5)
        writer.bytes += b"bgr8\0"
    with pytest.raises(FrameError) as caught:
        image_frame(writer.message())
    assert caught.value.fault == "message"


@pytest.mark.parametrize("start", [b"", b"\0", b"\0\1\0", b"\0\2\0\0", b"\1\0\0\0", b"\0\x0b\0\0"])
def test_other_encapsulations_are_named(start):
    with pytest.raises(FrameError, match="not plain CDR") as caught:
        image_frame(start + bytes(100 if len(start) == 4 else 0))
    assert caught.value.fault == "message"


@pytest.mark.parametrize("content", [b"", b"\0", b"bgr8", b"a\0b\0", b"\xff\xfe\0", b"\0\0\0\0"])
def test_strings_as_others_write_them(content):
    """C++ can send strings with a NUL, without one, or in no encoding at all."""
    writer = Writer("<")
    writer.put("I", 0, 0, len(content))
    writer.bytes += content
    writer.put("I", 0, 0, 0)
    writer.put("B", 0)
    writer.put("I", 0, 0)
    expected = conversions.frame_from_image(deserialize_message(writer.message(), Image))
    assert_same(image_frame(writer.message()), expected)


@given(message=images, cuts=st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_frame_or_an_error(message, cuts):
    broken = bytearray(written(message, cuts.draw(st.sampled_from("<>"))))
    # Bytes 2 and 3 are options, which plain CDR has no use for; Fast CDR refuses some.
    places = st.integers(0, len(broken) - 1).filter(lambda place: place not in (2, 3))
    for place in cuts.draw(st.lists(places, min_size=1, max_size=4)):
        broken[place] = cuts.draw(st.integers(0, 255))
    try:
        frame = image_frame(bytes(broken))
    except FrameError as error:
        assert error.fault == "message"
    else:
        assert_same(frame, conversions.frame_from_image(deserialize_message(bytes(broken), Image)))


def test_a_shared_memory_image_that_says_it_has_more_than_it_can_hold():
    message = hbm(HbmMsg480P, data_size=HbmMsg480P.MAX_SIZE + 1)
    for view in (
        lambda: conversions.frame_from_hbm(message, ""),
        lambda: IMAGE_TYPES["hbmem_480p"].frame(serialize_message(message), ""),
    ):
        with pytest.raises(FrameError, match="921601") as caught:
            view()
        assert caught.value.fault == "data"


@example(b"\0\1\0\0" + bytes(8))
@given(st.binary(max_size=40))
def test_a_reader_never_reads_beyond_the_end(message):
    try:
        reader = CdrReader(message)
        for _ in range(8):
            reader.sequence()
    except FrameError as error:
        assert error.fault == "message"
    else:
        pytest.fail("there are not so many sequences in 40 bytes")


# The node


@pytest.fixture
def model(tmp_path):
    return str(projection(tmp_path / "model.onnx"))


def scores(result):
    return tuple(each.score for each in result.results)


@pytest.mark.distros
@pytest.mark.e2e
@pytest.mark.parametrize("subscription", ["serialized", "typed"])
@pytest.mark.parametrize("transport", HBM)
def test_the_node_takes_shared_memory_images(start, model, transport, subscription):
    parameters = {
        "transport": transport,
        "subscription": subscription,
        "frame_id": "front",
        "queue_policy": "all",  # reliable: stock Fast DDS loses images of this size
    }
    _, talker = start({"model_path": model, **parameters}, message_type=HBM[transport])
    classifier = Classifier(load_model(ModelRequest(model_path=model)))
    answers = set()
    for number in range(1, 4):
        image = hbm(HBM[transport], seed=number)
        talker.images.publish(image)
        talker.expect_results(number)
        result = talker.results[-1]
        assert result.header == HeaderMessage(stamp=image.time_stamp, frame_id="front")
        frame = conversions.frame_from_hbm(image, "front")
        assert scores(result) == classifier.classify(frame).prediction.scores
        answers.add(scores(result))
    assert len(answers) == 3


@pytest.mark.distros
@pytest.mark.e2e
@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_the_typed_subscription_says_the_same(start, model, photos, transport):
    kind = {"raw": Image, "compressed": CompressedImage}[transport]
    results = []
    for subscription in ("serialized", "typed"):
        parameters = {"transport": transport, "subscription": subscription}
        _, talker = start({"model_path": model, **parameters}, message_type=kind)
        for number, photo in enumerate(photos[:3], start=1):
            if transport == "raw":
                pixels = array("B", photo.read_bytes()[1000:1600])
                message = Image(height=10, width=20, step=60, encoding="bgr8", data=pixels)
            else:
                message = CompressedImage(format="jpeg", data=array("B", photo.read_bytes()))
            message.header.stamp.sec = number
            talker.images.publish(message)
            talker.expect_results(number)
        results.append(talker.results)
    assert results[0] == results[1]
    assert len({scores(result) for result in results[0]}) == 3


@pytest.mark.distros
@pytest.mark.e2e
def test_broken_messages_among_good_ones(start, model):
    process, talker = start({"model_path": model, "queue_policy": "all"})
    image = Image(height=10, width=20, step=60, encoding="bgr8", data=array("B", bytes(600)))
    good = serialize_message(image)
    for length in range(4, 60, 4):
        talker.images.publish(good[:length])
    talker.images.publish(good)
    talker.expect_results(1)
    _, shown = talker.fresh_stream()
    assert shown["dropped: message"] == "14"
    assert shown["frames received"] == "15"
    assert process.stop().count("the message ends after") == 1


def test_a_type_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "hbm_img_msgs.msg", None)
    with pytest.raises(TransportError, match="package hbm_img_msgs: on the board, source"):
        TRANSPORTS["hbmem_1080p"].message_type()


@pytest.mark.distros
@pytest.mark.e2e
def test_a_node_without_the_type_says_so_and_stays(start, model, tmp_path, monkeypatch):
    """As on a laptop, where hbm_img_msgs is not installed."""
    package = tmp_path / "hidden" / "hbm_img_msgs"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    environment = {"PYTHONPATH": ":".join([str(package.parent), *filter(None, sys.path)])}
    parameters = {"model_path": model, "transport": "hbmem_1080p"}
    process, talker = start(parameters, environment=environment, wait=False)
    status, _ = talker.fresh_model()
    assert "need the package hbm_img_msgs" in status.message
    assert talker.state() == "unconfigured"
    assert "Traceback" not in process.stop()


def test_the_frame_id_is_for_messages_without_a_header_alone():
    assert [name for name, each in TRANSPORTS.items() if not each.type.has_header] == list(HBM)
    assert [each.type.name for each in TRANSPORTS.values()] == [
        "sensor_msgs/msg/Image",
        "sensor_msgs/msg/CompressedImage",
        *(f"hbm_img_msgs/msg/{kind.__name__}" for kind in HBM.values()),
    ]


@pytest.mark.distros
@pytest.mark.e2e
def test_a_topic_of_shared_memory_images_is_recognised(start, model):
    process, talker = start({"model_path": model}, message_type=HbmMsg1080P, wait=False)
    assert talker.spin_until(lambda: talker.vision_info, SOON)
    talker.spin_for(5.0)
    assert process.stop().count("Start with transport:=hbmem_1080p") == 1
