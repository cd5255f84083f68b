"""Bags through the classifier without a middleware, runs as files, and golden runs."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from bag_maker import PERIOD, START, compressed, hbm, header, image, make, picture, stamps, write
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from message_packages import need_annotations
from tiny_models import fails_on_bright, projection

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.errors import BagError
from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import NODE, ModelRequest, ViewOptions
from efv2_ros.classify.postprocess import Prediction
from efv2_ros.cli.main import main
from efv2_ros.files import FileWriteError
from efv2_ros.messages import message as messages
from efv2_ros.messages.message import serialize
from efv2_ros.replay import offline
from efv2_ros.replay.golden import compare, write_junit
from efv2_ros.replay.results import read_run, write_results
from efv2_ros.replay.run import FrameResult, Run, RunError, read_jsonl, save_jsonl, write_jsonl
from efv2_ros.vision.frame import Frame, Header


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return projection(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def classifier(model_file):
    request = ModelRequest(model_path=str(model_file), threads=1, slots=4)
    model = load_model(request, pipelined=True)
    yield Classifier(model)
    model.close()


@pytest.fixture
def efv2(model_file, tmp_path, monkeypatch):
    """Runs `efv2 replay` in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        command = ["replay", *map(str, arguments), "--model", str(model_file), "--threads", "1"]
        return CliRunner().invoke(main, command)

    return run


def replay(path, classifier, topic="", **options):
    with Bag(path) as bag:
        run = offline.replay(bag, bag.image_topic(topic), classifier, **options)
        return run, bag.problems


def nanoseconds(run):
    return [frame.header.nanoseconds for frame in run.frames]


@pytest.mark.numpy2
@pytest.mark.parametrize("slots", [1, 4])
def test_every_image_is_classified_as_it_would_be_alone(tmp_path, classifier, slots):
    run, problems = replay(make(tmp_path / "bag", 40), classifier, slots=slots)
    assert problems == []
    assert nanoseconds(run) == stamps(40)
    assert run.drops() == {}
    for number, frame in enumerate(run.frames):
        alone = classifier.classify(Frame.from_bgr(picture(number)))
        assert frame.prediction == alone.prediction
        assert frame.header.frame_id == "camera"
        assert set(frame.milliseconds) == {"read", "wait", "convert", "infer", "postprocess"}
        assert all(each >= 0 for each in frame.milliseconds.values())
    assert len({frame.prediction.class_ids for frame in run.frames}) > 20
    assert set(run.stages()) == set(run.frames[0].milliseconds)


@pytest.mark.parametrize("slots", [1, 4])
def test_smoothing_takes_the_images_in_their_order(tmp_path, classifier, slots):
    options = ViewOptions(smoothing="ema", smoothing_time=1.0)
    run, _ = replay(make(tmp_path / "bag", 40), Classifier(classifier.model, options), slots=slots)
    one_by_one = Classifier(classifier.model, options)
    for number, frame in enumerate(run.frames):
        image_alone = replace(Frame.from_bgr(picture(number)), header=frame.header)
        assert frame.prediction == one_by_one.classify(image_alone).prediction
    assert run.info["view"]["smoothing"] == "ema"


def test_images_come_out_in_the_order_of_their_stamps(tmp_path, classifier):
    order = np.random.default_rng(0).permutation(30)
    path = write(
        tmp_path / "bag",
        [("/image", START + n, image(each, stamps(30)[each])) for n, each in enumerate(order)],
        storage="sqlite3",
    )
    run, _ = replay(path, classifier, slots=2)
    assert nanoseconds(run) == stamps(30)
    for number, frame in enumerate(run.frames):
        alone = classifier.classify(Frame.from_bgr(picture(number)))
        assert frame.prediction == alone.prediction


def test_images_of_one_stamp_stay_in_the_order_of_the_bag(tmp_path, classifier):
    path = write(tmp_path / "bag", [("/image", START + n, image(n, START)) for n in range(12)])
    run, _ = replay(path, classifier, slots=4)
    expected = [classifier.classify(Frame.from_bgr(picture(n))).prediction for n in range(12)]
    assert [frame.prediction for frame in run.frames] == expected


def test_what_cannot_be_read_keeps_its_place_too(tmp_path, classifier):
    kind, data = image(0, START)
    path = write(
        tmp_path / "bag",
        [("/image", START, message) for message in (image(1, START), (kind, data[:9]))],
    )
    run, _ = replay(path, classifier)
    assert [frame.dropped for frame in run.frames] == ["", "message"]


def broken_bag(path):
    """Six images, of which only 0 and 5 can be classified."""
    kind, data = image(1, stamps(6)[1])
    messages = [
        image(0, stamps(6)[0]),
        image(1, stamps(6)[1], encoding="bayer_grbg99"),
        image(2, stamps(6)[2], height=0),
        image(3, stamps(6)[3], data=np.zeros(7, np.uint8)),
        (kind, data[:20]),
        image(5, stamps(6)[5]),
    ]
    return write(path, [("/image", stamps(6)[n], each) for n, each in enumerate(messages)])


def report(drops):
    """A node's diagnostics, with this many images dropped."""
    kind = "diagnostic_msgs/msg/DiagnosticArray"
    counted = messages.message(
        "diagnostic_msgs/msg/KeyValue", key="dropped: decode", value=str(drops)
    )
    stream = messages.message(
        "diagnostic_msgs/msg/DiagnosticStatus", level=0, name="efv2_classifier: stream",
        message="", hardware_id="", values=[counted],
    )  # fmt: skip
    return "/diagnostics", START, (kind, serialize(kind, header=header(START), status=[stream]))


@pytest.mark.parametrize(
    ("order", "lost"), [("5r7", {"decode": 2}), ("r57", {"decode": 7}), ("5r5", {})]
)
def test_what_a_node_had_dropped_before_its_first_result_is_of_another_run(tmp_path, order, lost):
    kind = "vision_msgs/msg/Classification"
    result = kind, serialize(kind, header=header(START), results=[])
    messages = [
        (f"{NODE}/classification", START, result) if each == "r" else report(int(each))
        for each in order
    ]
    assert read_run(write(tmp_path / "bag", messages)).lost == lost


def test_what_cannot_be_classified_is_dropped_with_its_cause(tmp_path, classifier):
    run, problems = replay(broken_bag(tmp_path / "bag"), classifier)
    assert problems == []
    assert nanoseconds(run) == stamps(6)
    causes = [frame.dropped for frame in run.frames]
    assert causes == ["", "encoding", "size", "data", "message", ""]
    assert "bayer_grbg99" in run.frames[1].reason
    assert run.drops() == {"data": 1, "encoding": 1, "message": 1, "size": 1}


@pytest.mark.parametrize("kind", [compressed, hbm])
def test_other_types_of_image(tmp_path, classifier, kind):
    run, _ = replay(make(tmp_path / "bag", 5, kind=kind), classifier, frame_id="front")
    assert nanoseconds(run) == stamps(5)
    assert {frame.header.frame_id for frame in run.frames} == {
        "front" if kind is hbm else "camera"
    }
    assert len({frame.prediction for frame in run.frames}) == 5


def test_ctrl_c_keeps_the_results_so_far(tmp_path, classifier, monkeypatch):
    images = Bag.images

    def interrupted(self, *arguments, **options):
        yield from itertools.islice(images(self, *arguments, **options), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(Bag, "images", interrupted)
    run, (problem,) = replay(make(tmp_path / "bag", 9), classifier)
    assert problem.startswith("interrupted")
    assert nanoseconds(run) == stamps(9)[: len(run.frames)]
    assert len(run.frames) <= 3


@pytest.mark.parametrize("damaged", [False, True])
def test_a_replay_is_stopped_between_images(tmp_path, classifier, damaged):
    """Also where none comes for long: the rest of a damaged bag is read message by message."""
    chat = ("std_msgs/msg/String", serialize("std_msgs/msg/String", data="hello"))
    images = [("/image", stamp, image(number, stamp)) for number, stamp in enumerate(stamps(9))]
    path = write(tmp_path / "bag", [*images[:5], *[("/chat", START, chat)] * 200, *images[5:]])
    if damaged:
        file = path / "bag.mcap"
        file.write_bytes(file.read_bytes()[:-10])
    asked = []

    def should_stop():
        asked.append(None)
        return len(asked) > (20 if damaged else 7)

    run, problems = replay(path, classifier, should_stop=should_stop)
    assert problems[-1].startswith("interrupted")
    assert nanoseconds(run) == stamps(9)[: len(run.frames)]
    assert len(run.frames) <= (5 if damaged else 7)


# Runs as files


def written(run, path, **options):
    with path.open("w", encoding="utf-8") as file:
        write_jsonl(run, file, **options)
    return path


def without_timings(run):
    return [replace(frame, milliseconds={}) for frame in run.frames]


def test_json_lines_say_all_and_read_back(tmp_path, classifier):
    run, _ = replay(broken_bag(tmp_path / "bag"), classifier)
    path = written(run, tmp_path / "run.jsonl")
    first, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert first["run"]["topic"] == "/image"
    assert first["run"]["view"]["fit"] == "crop"
    prediction = run.frames[0].prediction
    assert lines[0] == {
        "sec": START // 10**9, "nanosec": 0, "frame_id": "camera",
        "results": [
            {"class_id": class_id, "label": classifier.model.labels[class_id], "score": score}
            for class_id, score in zip(*prediction, strict=True)
        ],
    }  # fmt: skip
    assert (lines[1]["dropped"], lines[1]["nanosec"]) == ("encoding", PERIOD)
    again = read_jsonl(path)
    assert again.info == json.loads(json.dumps(run.info))
    assert again.frames == without_timings(run)
    assert (
        again.labels[prediction.class_ids[0]] == classifier.model.labels[prediction.class_ids[0]]
    )


def test_labels_are_text_as_it_is(tmp_path):
    run = Run({"bag": "包"}, {1: "金鱼"}, [result(1, (1, 0.5))])
    text = written(run, tmp_path / "run.jsonl").read_text(encoding="utf-8")
    assert "包" in text
    assert "金鱼" in text
    assert read_jsonl(tmp_path / "run.jsonl").labels == {1: "金鱼"}


LINE_ENDS = "a\x85b\u2028c\u2029d\x0be\x1cf\r\ng\nh"


@pytest.mark.parametrize("text", [LINE_ENDS, "half a \ud83d character", "\udcff.jpg", "\x7f\x9b"])
def test_whatever_a_label_holds_reads_back(tmp_path, text):
    frames = [
        replace(result(1, (1, 0.5)), header=Header(1, 0, text)),
        replace(result(2, dropped="decode"), reason=text),
    ]
    run = Run({"bag": text}, {1: text}, frames)
    save_jsonl(run, tmp_path / "run.jsonl")
    again = read_jsonl(tmp_path / "run.jsonl")
    assert (again.info, again.labels, again.frames) == (run.info, run.labels, frames)
    assert len((tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_line_ends_written_as_they_are_read_back(tmp_path):
    line = {"sec": 1, "nanosec": 0, "frame_id": "a\x85b\u2028c\u2029d", "dropped": "size"}
    texts = (json.dumps(each, ensure_ascii=False) for each in ({"run": {}}, line))
    (tmp_path / "run.jsonl").write_text("\n".join(texts), encoding="utf-8")
    (frame,) = read_jsonl(tmp_path / "run.jsonl").frames
    assert frame.header.frame_id == line["frame_id"]


def test_what_a_live_node_counted_is_among_the_drops():
    run = Run({}, {}, [result(1, dropped="size"), result(2)], {"size": 2, "superseded": 3})
    assert run.drops() == {"size": 3, "superseded": 3}


def test_timings_are_written_when_asked_for(tmp_path, classifier):
    run, _ = replay(make(tmp_path / "bag", 3), classifier)
    again = read_jsonl(written(run, tmp_path / "run.jsonl", timings=True))
    for frame, original in zip(again.frames, run.frames, strict=True):
        assert frame.milliseconds == pytest.approx(original.milliseconds, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("{}\n", "line 1 of"),
        ("not json\n", "line 1 of"),
        ('{"run": {}}\n{"sec": 1}\n', "line 2 of"),
        ('{"run": {}}\n{"sec": 1, "nanosec": 0, "results": [{"class_id": 1, "score": NaN}]}\n',
         "line 2 of .*not finite"),
        ('{"run": {}}\n[1]\n', "line 2 of"),
        ('{"run": {}}\n' + "[" * 100_000, "line 2 of"),
        ('{"run": {}}\n{"sec": Infinity, "nanosec": 0, "results": []}\n', "line 2 of"),
        ('{"run": {}}\n{"sec": 99999999999, "nanosec": 0, "results": []}\n', "is no ROS stamp"),
        ('{"run": {}}\n{"sec": 1, "nanosec": 0, "milliseconds": [], "results": []}\n', "line 2"),
        ('{"run": 7}\n', "line 1 of"),
        ('{"run": {}}\n\n\n', "line 2 of"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_run(tmp_path, text, sentence):
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(RunError, match=sentence):
        read_jsonl(path)


def test_no_file_at_all(tmp_path):
    with pytest.raises(RunError, match="cannot read"):
        read_jsonl(tmp_path / "gone.jsonl")
    with pytest.raises(RunError, match="there is no run"):
        read_run(tmp_path / "gone")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="cannot read"):
        read_jsonl(tmp_path / "binary")


def test_a_run_as_a_bag_reads_back(tmp_path, classifier):
    run, _ = replay(broken_bag(tmp_path / "bag"), classifier)
    write_results(run, tmp_path / "results")
    again = read_run(tmp_path / "results")
    assert again.frames[1:5] == run.frames[1:5]
    assert [replace(each, milliseconds={}) for each in again.frames] == without_timings(run)
    assert again.frames[0].milliseconds == pytest.approx(run.frames[0].milliseconds, abs=1e-4)
    assert again.labels == run.labels
    assert again.info == run.info
    assert again.drops() == run.drops()


def test_a_label_that_ros_cannot_hold_is_no_reason_to_lose_a_run(tmp_path):
    frames = [result(1, (1, 0.5)), replace(result(2, dropped="size"), reason="\udcff.jpg")]
    write_results(Run({"bag": "\udcff"}, {1: "a \ud800"}, frames), tmp_path / "results")
    again = read_run(tmp_path / "results")
    assert again.labels == {0: "", 1: "a \N{REPLACEMENT CHARACTER}"}
    assert again.frames[1].reason == "\N{REPLACEMENT CHARACTER}.jpg"
    assert again.info["bag"] == "\udcff"


def test_a_run_that_cannot_be_written_leaves_no_bag(tmp_path):
    run = Run({}, {1: "x"}, [result(1, (1, 0.5)), result(2, (1, "no score"))])
    with pytest.raises(Exception, match="float"):
        write_results(run, tmp_path / "results")
    assert not (tmp_path / "results").exists()
    write_results(replace_frames(run), tmp_path / "results")
    with pytest.raises(BagError, match="exists already"):
        write_results(run, tmp_path / "results")
    assert len(read_run(tmp_path / "results").frames) == 1


def replace_frames(run):
    return Run(run.info, run.labels, run.frames[:1])


@pytest.mark.parametrize(
    ("topic", "kind", "fields"),
    [
        ("classification", "vision_msgs/msg/Classification", {"class_id": "person", "score": 1.0}),
        ("latency", "diagnostic_msgs/msg/DiagnosticArray", {"key": "infer", "value": "long"}),
    ],
)
def test_results_of_another_program_are_no_run(tmp_path, topic, kind, fields):
    stamp = header(START)
    if topic == "latency":
        status = messages.message(
            "diagnostic_msgs/msg/DiagnosticStatus", level=0, name="x", message="",
            hardware_id="", values=[messages.message("diagnostic_msgs/msg/KeyValue", **fields)],
        )  # fmt: skip
        data = serialize(kind, header=stamp, status=[status])
    else:
        results = [messages.message("vision_msgs/msg/ObjectHypothesis", **fields)]
        data = serialize(kind, header=stamp, results=results)
    empty = serialize("vision_msgs/msg/Classification", header=stamp, results=[])
    path = write(
        tmp_path / "bag",
        [
            (f"{NODE}/{topic}", START, (kind, data)),
            (f"{NODE}/classification", START, ("vision_msgs/msg/Classification", empty)),
        ],
    )
    with pytest.raises(RunError, match=rf"holds no run: a message on {NODE}/{topic} cannot be"):
        read_run(path)


def test_results_that_were_recorded_in_another_order(tmp_path):
    kind = "vision_msgs/msg/Classification"
    path = write(
        tmp_path / "results",
        [
            ("/a/classification", number, (kind, serialize(kind, header=header(s), results=[])))
            for number, s in enumerate(reversed(stamps(3)))
        ],
    )
    assert nanoseconds(read_run(path)) == stamps(3)


def test_a_damaged_bag_of_results_says_so(tmp_path, classifier):
    run, _ = replay(make(tmp_path / "bag", 200), classifier)
    write_results(run, tmp_path / "results")
    file = tmp_path / "results" / "results.mcap"
    file.write_bytes(file.read_bytes()[:-10])
    again = read_run(tmp_path / "results")
    assert 0 < len(again.frames) <= 200
    assert any("damaged" in problem for problem in again.info["problems"])


def test_the_bag_holds_what_the_node_would_publish(tmp_path, classifier):
    serialization = pytest.importorskip("rclpy.serialization")
    from std_msgs.msg import String
    from vision_msgs.msg import Classification, LabelInfo, VisionInfo

    run, _ = replay(make(tmp_path / "bag", 4), classifier)
    run.info["view"]["score_threshold"] = 0.25
    write_results(run, tmp_path / "results")
    with Bag(tmp_path / "results") as bag:
        topics = {name: topic.type_name for name, topic in bag.topics.items()}
        durabilities = {
            name.rpartition("/")[2]: topic.qos[0].durability.name
            for name, topic in bag.topics.items()
        }
        messages = list(bag.messages(topics))
    assert topics == {
        f"{NODE}/classification": "vision_msgs/msg/Classification",
        f"{NODE}/vision_info": "vision_msgs/msg/VisionInfo",
        f"{NODE}/label_info": "vision_msgs/msg/LabelInfo",
        f"{NODE}/latency": "diagnostic_msgs/msg/DiagnosticArray",
        f"{NODE}/label": "std_msgs/msg/String",
        f"{NODE}/annotations": "foxglove_msgs/msg/ImageAnnotations",
    }

    assert durabilities == {
        "classification": "VOLATILE", "latency": "VOLATILE",
        "label": "VOLATILE", "annotations": "VOLATILE",
        "vision_info": "TRANSIENT_LOCAL", "label_info": "TRANSIENT_LOCAL",
    }  # fmt: skip

    def read(name, kind):
        return [
            (each.log_time, serialization.deserialize_message(each.data, kind))
            for each in messages
            if each.topic == f"{NODE}/{name}"
        ]

    results = read("classification", Classification)
    assert [log_time for log_time, _ in results] == stamps(4)
    for frame, (log_time, message) in zip(run.frames, results, strict=True):
        stamp = message.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == log_time
        assert message.header.frame_id == "camera"
        assert tuple(each.class_id for each in message.results) == tuple(
            map(str, frame.prediction.class_ids)
        )
        assert tuple(each.score for each in message.results) == frame.prediction.scores
    best = [run.labels[frame.prediction.class_ids[0]] for frame in run.frames]
    assert read("label", String) == list(
        zip(stamps(4), (String(data=each) for each in best), strict=True)
    )
    ((_, labels),) = read("label_info", LabelInfo)
    assert [each.class_name for each in labels.class_map] == list(classifier.model.labels)
    assert [each.class_id for each in labels.class_map] == list(range(1000))
    assert labels.threshold == 0.25
    ((_, info),) = read("vision_info", VisionInfo)
    assert (info.method, info.database_location) == (classifier.model.name, f"{NODE}/label_info")


def test_the_bag_holds_the_annotations_that_the_node_would_publish(tmp_path, classifier):
    serialization = pytest.importorskip("rclpy.serialization")
    need_annotations()
    from foxglove_msgs.msg import ImageAnnotations

    run, _ = replay(broken_bag(tmp_path / "bag"), classifier)
    write_results(run, tmp_path / "results")
    with Bag(tmp_path / "results") as bag:
        messages = list(bag.messages([f"{NODE}/annotations"]))
    frames = [frame for frame in run.frames if not frame.dropped]
    for frame, message in zip(frames, messages, strict=True):
        drawn = serialization.deserialize_message(message.data, ImageAnnotations)
        best = run.labels[frame.prediction.class_ids[0]]
        assert (drawn.timestamp.sec, drawn.timestamp.nanosec) == frame.header[:2]
        assert drawn.texts[0].text == f"{frame.prediction.scores[0]:6.1%} {best}"
        assert len(drawn.texts) == len(frame.prediction.scores)
        assert [(each.x, each.y) for each in drawn.points[0].points] == list(frame.seen.corners)


def test_a_run_from_a_file_has_no_annotations(tmp_path, classifier):
    """Nothing tells the size of its images."""
    run, _ = replay(make(tmp_path / "bag", 2), classifier)
    write_results(read_jsonl(written(run, tmp_path / "run.jsonl")), tmp_path / "results")
    with Bag(tmp_path / "results") as bag:
        assert f"{NODE}/annotations" not in bag.topics
        assert bag.topics[f"{NODE}/label"].count == 2


def test_foxglove_opens_the_bag(tmp_path, classifier):
    """Its own library finds an index, and a definition of every type in it."""
    from mcap.reader import make_reader

    run, _ = replay(make(tmp_path / "bag", 4), classifier)
    write_results(run, tmp_path / "results")
    with (tmp_path / "results" / "results.mcap").open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        counts = {
            channel.topic.rpartition("/")[2]: summary.statistics.channel_message_counts[number]
            for number, channel in summary.channels.items()
        }
        found = [(each.name, each.encoding) for each in summary.schemas.values()]
        texts = b"".join(each.data for each in summary.schemas.values())
        times = [message.log_time for _, channel, message in reader.iter_messages()
                 if channel.topic.endswith("/classification")]  # fmt: skip
    assert counts == {
        **dict.fromkeys(("classification", "label", "annotations", "latency"), 4),
        **dict.fromkeys(("label_info", "vision_info"), 1),
    }
    assert {encoding for _, encoding in found} == {"ros2msg"}
    assert b"MSG: vision_msgs/ObjectHypothesis" in texts
    assert times == stamps(4)


def test_an_empty_run_is_a_bag_too(tmp_path, classifier):
    run, _ = replay(make(tmp_path / "bag", 1), classifier)
    write_results(Run(run.info, run.labels, []), tmp_path / "results")
    with Bag(tmp_path / "results") as bag:
        assert {topic.rpartition("/")[2] for topic in bag.topics} == {"vision_info", "label_info"}


@pytest.mark.parametrize("topics", [[], ["/one/classification", "/two/classification"]])
def test_a_bag_that_is_no_run(tmp_path, topics):
    kind = "vision_msgs/msg/Classification"
    message = kind, serialize(kind, header=header(START), results=[])
    chat = ("std_msgs/msg/String", serialize("std_msgs/msg/String", data="hello"))
    path = write(
        tmp_path / "bag", [("/chat", 1, chat), *((topic, 1, message) for topic in topics)]
    )
    with pytest.raises(RunError, match="holds no run: .*" + (topics[1] if topics else "none")):
        read_run(path)


# Golden runs


def result(number, *results, dropped=""):
    prediction = Prediction(*zip(*results, strict=True)) if results else Prediction((), ())
    return FrameResult(Header(number, 0, "camera"), prediction, dropped)


def golden(*frames):
    return Run({"model": "s0"}, {1: "goldfish", 2: "shark"}, list(frames))


BEFORE = result(5, (1, 0.7), (2, 0.2), (3, 0.1))


@pytest.mark.parametrize(
    ("after", "kind", "sentence"),
    [
        (result(5, (1, 0.7009), (2, 0.1995), (3, 0.1)), None, ""),
        (result(5, (1, 0.7), (2, 0.2), (4, 0.0995)), None, ""),
        (
            result(5, (1, 0.7), (2, 0.2)),
            "count",
            "2 results, but 3 in the golden run; class 3 scores at most 0.000000, but 0.100000",
        ),
        (result(5, (1, 0.7), (2, 0.2), (3, 0.1), (4, 0.1)), "count", "4 results, but 3 in the"),
        (
            result(5, (1, 0.7), (4, 0.22), (2, 0.2)),
            "score",
            "class 4 scores 0.220000, but at most 0.100000 in the golden run",
        ),
        (
            result(5, (1, 0.7), (4, 0.1005), (2, 0.2)),
            "rank",
            r"number 2 is class 4 \(0.1005\), but shark \(0.2000\) in the golden run",
        ),
        (result(5, (1, 0.7), (3, 0.1), (2, 0.2)), "rank", "number 2 is class 3"),
        (result(5, (1, 0.7), (2, 0.2), (3, 0.1), (2, 0.2)), "rank", "number 4 is shark"),
        (result(5, (1, 0.7), (2, 0.1995), (4, 0.1002)), None, ""),
        (result(5, (1, 0.7), (2, float("nan")), (3, 0.1)), "score", "shark scores nan"),
        (result(5, (1, 0.7), (2, 0.2), (4, 0.08)), "score", "class 3 scores at most 0.08"),
        (
            result(5, (1, 0.702), (2, 0.2), (3, 0.098)),
            "score",
            "goldfish scores 0.702000, but",
        ),
        (result(5, (2, 0.7), (1, 0.2), (3, 0.1)), "top-1", r"shark \(0.7000\), but goldfish"),
        (result(5), "top-1", "no class above the threshold, but goldfish"),
        (result(5, dropped="decode"), "dropped", r"dropped \(decode\), but classified"),
        (replace(BEFORE, header=Header(5, 0, "left")), "frame_id", "'left', but 'camera'"),
        (result(6, (1, 0.7), (2, 0.2), (3, 0.1)), "missing", "golden run only"),
    ],
)
def test_what_differs(after, kind, sentence):
    comparison = compare(golden(BEFORE), golden(after), 0.001)
    if kind is None:
        assert not comparison.differences
        return
    first = comparison.differences[0]
    assert (first.key.nanoseconds, first.kind) == (5 * 10**9, kind)
    assert re.search(sentence, first.text)
    assert len(comparison.differences) == (2 if kind == "missing" else 1)


@pytest.mark.parametrize(
    ("score", "differs"), [(0.1005, False), (0.1015, True), (0.3, True), (0.1, False)]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_result_at_the_threshold_may_come_and_go(score, differs, swapped):
    runs = [golden(result(5, (1, 0.7), (2, score))), golden(result(5, (1, 0.7)))]
    for each in runs:
        each.info["view"] = {"score_threshold": 0.1, "top_k": 5}
    comparison = compare(*(reversed(runs) if swapped else runs), 0.001)
    assert [each.kind for each in comparison.differences] == (["count"] if differs else [])


@given(
    st.lists(st.floats(0, 1), min_size=8, max_size=8),
    st.lists(st.floats(-1, 1), min_size=8, max_size=8),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.2, 0.6]),
)
def test_whatever_moves_by_less_than_the_tolerance_is_the_same(scores, moves, top_k, threshold):
    tolerance = 0.01

    def told(scores):
        best = sorted(enumerate(scores), key=lambda each: -each[1])[:top_k]
        found = golden(result(5, *(each for each in best if each[1] >= threshold)))
        found.info["view"] = {"score_threshold": threshold}
        return found

    before, now = (
        told(each)
        for each in (
            scores,
            [a + b * tolerance * 0.99 for a, b in zip(scores, moves, strict=True)],
        )
    )
    kinds = {each.kind for each in compare(before, now, tolerance).differences}
    assert kinds <= {"top-1"}  # of nearly equal classes, another is the best: that is told


def test_missing_and_extra_images_are_told_in_order():
    comparison = compare(
        golden(result(1), result(2), result(2), result(4)),
        golden(result(2), result(3), result(4), result(4)),
        0.0,
    )
    assert [(str(key), kind) for key, kind, _ in comparison.differences] == [
        ("1.000000000", "missing"),
        ("2.000000000 (2.)", "missing"),
        ("3.000000000", "extra"),
        ("4.000000000 (2.)", "extra"),
    ]
    assert len(comparison.keys) == 6


def test_a_drop_for_another_cause_is_a_difference():
    comparison = compare(golden(result(1, dropped="size")), golden(result(1, dropped="data")), 0.0)
    assert [each.kind for each in comparison.differences] == ["dropped"]
    same = golden(result(1, dropped="size"))
    assert not compare(same, same, 0.0).differences


def test_another_model_is_noted():
    other = golden(BEFORE)
    other.info = {"model": "s1", "bag": "elsewhere"}
    assert compare(golden(BEFORE), other, 0.0).notes == [
        "model is s1, and was s0 in the golden run"
    ]


def test_junit(tmp_path):
    comparison = compare(
        golden(BEFORE, result(6)), golden(result(5, (2, 1.0)), result(6), result(7)), 0.001
    )
    write_junit(comparison, tmp_path / "a.xml", name="replay\x07", problems=["cut <off>"])
    suite = ElementTree.parse(tmp_path / "a.xml").getroot().find("testsuite")
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "2", "errors": "1", "skipped": "0"}
    assert suite.get("name") == "replay\N{REPLACEMENT CHARACTER}"
    bag, *cases = suite
    assert bag.find("error").get("message") == "cut <off>"
    assert [case.get("name") for case in cases] == ["5.000000000", "6.000000000", "7.000000000"]
    assert cases[0].find("failure").get("type") == "top-1"
    assert len(cases[1]) == 0
    assert cases[2].find("failure").get("type") == "extra"
    with pytest.raises(FileWriteError, match="cannot write"):
        write_junit(comparison, tmp_path / "gone" / "a.xml", name="", problems=[])


# The command


def test_a_golden_run_is_replaced_as_a_whole_or_stays(tmp_path, efv2, model_file, monkeypatch):
    make(tmp_path / "bag", 3)
    labels = [f"class {number}" for number in range(1000)]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    update = ["bag", "--golden", "g.jsonl", "--update-golden", "--labels", "labels.json"]
    assert efv2(*update).exit_code == 0
    before = (tmp_path / "g.jsonl").read_bytes()
    (tmp_path / "labels.json").write_text(json.dumps([f"{each} \ud800" for each in labels]))
    outcome = efv2(*update)  # no label that UTF-8 can hold
    assert (outcome.exit_code, "surrogate" in outcome.output) == (1, True)
    assert (tmp_path / "g.jsonl").read_bytes() == before
    (tmp_path / "labels.json").write_text(json.dumps(labels))

    def cut_off(run, file, *, timings=False):
        file.write("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("efv2_ros.replay.run.write_jsonl", cut_off)
    assert efv2(*update).exit_code != 0
    assert (tmp_path / "g.jsonl").read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} == {"bag", "g.jsonl", "labels.json"}


@pytest.mark.numpy2
def test_the_same_bag_gives_the_same_bytes(tmp_path, efv2):
    make(tmp_path / "bag", 20)
    for name, slots in (("a", 1), ("b", 1), ("c", 3)):
        outcome = efv2("bag", "--jsonl", f"{name}.jsonl", "--slots", slots)
        assert outcome.exit_code == 0, outcome.output
    contents = [(tmp_path / f"{name}.jsonl").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] == contents[2]
    assert contents[0].count(b"\n") == 21
    assert "20 images of /image: 20 classified, 0 dropped" in outcome.output
    assert "infer" in outcome.output


def test_json_lines_on_standard_output(tmp_path, efv2):
    make(tmp_path / "bag", 3)
    outcome = efv2("bag", "--jsonl", "-")
    lines = outcome.stdout.splitlines()
    assert len(lines) == 4
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert "3 classified" in outcome.stderr


def test_a_golden_run_made_and_met(tmp_path, efv2):
    make(tmp_path / "bag", 6)
    outcome = efv2("bag", "--golden", "g.jsonl", "--roi", "1,2,20,20", "--update-golden")
    assert "wrote g.jsonl: 6 images" in outcome.output
    outcome = efv2("bag", "--golden", "g.jsonl", "--roi", "1,2,20,20", "--junit", "j.xml")
    assert outcome.exit_code == 0, outcome.output
    assert "in the golden run" not in outcome.output
    assert "the same as g.jsonl: 6 images" in outcome.output
    suite = ElementTree.parse(tmp_path / "j.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("6", "0")


def test_a_golden_run_missed(tmp_path, efv2):
    make(tmp_path / "bag", 14)
    efv2("bag", "--golden", "g.jsonl", "--update-golden")
    lines = (tmp_path / "g.jsonl").read_text().splitlines()
    changed = json.loads(lines[2])
    changed["results"][0]["class_id"] += 1
    lines[2] = json.dumps(changed)
    del lines[5]
    (tmp_path / "g.jsonl").write_text("\n".join(lines))
    before = (tmp_path / "g.jsonl").read_bytes()
    outcome = efv2("bag", "--golden", "g.jsonl", "--junit", "j.xml")
    assert outcome.exit_code == 1
    assert "2 of 14 images differ" in outcome.output
    assert "top-1" in outcome.output
    assert "extra" in outcome.output
    assert (tmp_path / "g.jsonl").read_bytes() == before
    suite = ElementTree.parse(tmp_path / "j.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("14", "2")
    outcome = efv2("bag", "--golden", "g.jsonl", "--fit", "stretch")
    assert "fit is stretch, and was crop in the golden run" in outcome.output
    assert "top_k is" not in outcome.output
    assert "and 4 more" in outcome.output


def test_a_damaged_bag_gives_what_can_be_read_and_a_failure(tmp_path, efv2):
    make(tmp_path / "bag", 40, storage="sqlite3")
    efv2("bag", "--golden", "g.jsonl", "--update-golden")
    golden_bytes = (tmp_path / "g.jsonl").read_bytes()
    file = tmp_path / "bag" / "bag.db3"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    outcome = efv2("bag", "--jsonl", "a.jsonl", "--out", "out", "--golden", "g.jsonl",
                   "--junit", "j.xml")  # fmt: skip
    assert outcome.exit_code == 1
    assert "damaged" in outcome.stderr
    assert "missing" in outcome.output
    found = len(read_jsonl(tmp_path / "a.jsonl").frames)
    assert 10 < found < 40
    assert len(read_run(tmp_path / "out").frames) == found
    suite = ElementTree.parse(tmp_path / "j.xml").getroot().find("testsuite")
    assert suite.get("errors") != "0"
    outcome = efv2("bag", "--golden", "g.jsonl", "--update-golden")
    assert outcome.exit_code == 1
    assert "only a whole run can be golden" in outcome.output
    assert (tmp_path / "g.jsonl").read_bytes() == golden_bytes


def test_dropped_images_are_told_and_are_no_failure(tmp_path, efv2):
    broken_bag(tmp_path / "bag")
    outcome = efv2("bag")
    assert outcome.exit_code == 0
    assert "2 classified, 4 dropped (1 data, 1 encoding, 1 message, 1 size)" in outcome.output
    assert "first dropped for encoding" in outcome.output


def test_a_runtime_that_fails_is_a_failure(tmp_path):
    path = write(
        tmp_path / "bag",
        [
            ("/image", stamp, image(0, stamp, data=np.full(24 * 32 * 3, level, np.uint8)))
            for stamp, level in zip(stamps(3), (50, 250, 60), strict=True)
        ],
    )
    model = fails_on_bright(tmp_path / "model.onnx")
    outcome = CliRunner().invoke(
        main, ["replay", str(path), "--model", str(model), "--mean", "0,0,0", "--scale", "1,1,1"]
    )
    assert outcome.exit_code == 1
    assert "2 classified, 1 dropped (1 infer)" in outcome.output


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["gone"], 1, "there is no bag gone"),
        (["bag", "--topic", "/none"], 1, "has no topic /none"),
        (["bag", "--update-golden"], 2, "need --golden"),
        (["bag", "--junit", "j.xml"], 2, "need --golden"),
        (["bag", "--golden", "g", "--update-golden", "--junit", "j.xml"], 2, "makes none"),
        (["bag", "--golden", "gone.jsonl"], 1, "cannot read"),
        (["bag", "--out", "bag"], 1, "exists already"),
        (["bag", "--jsonl", "gone/a.jsonl"], 1, "cannot write gone/a.jsonl"),
        (["bag", "--out", "notes.txt/out"], 1, "cannot write the bag"),
    ],
)
def test_what_cannot_be_done(tmp_path, efv2, arguments, status, sentence):
    make(tmp_path / "bag", 1)
    (tmp_path / "notes.txt").write_text("")
    outcome = efv2(*arguments)
    assert outcome.exit_code == status
    assert "images of" not in outcome.output or "--jsonl" in arguments
    assert sentence in outcome.output
    assert "Traceback" not in outcome.output


def test_view_options_reach_the_classifier(tmp_path, efv2):
    make(tmp_path / "bag", 3)
    efv2("bag", "--jsonl", "a.jsonl", "--top-k", 2, "--fit", "letterbox", "--threshold", "0.01",
         "--roi", "2,2,20,20", "--no-antialias", "--input-range", "full",
         "--max-pixels", 1234, "--smoothing", "vote", "--smoothing-time", 2)  # fmt: skip
    run = read_jsonl(tmp_path / "a.jsonl")
    assert run.info["view"] == {
        "fit": "letterbox", "roi": [2, 2, 20, 20], "input_range": "full", "antialias": False,
        "max_pixels": 1234, "top_k": 2, "score_threshold": 0.01,
        "smoothing": "vote", "smoothing_time": 2.0,
    }  # fmt: skip
    assert {len(frame.prediction.scores) for frame in run.frames} <= {0, 1, 2}
