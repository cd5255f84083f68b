"""Bags made of pictures: read back here, by ROS's own messages and by Foxglove's library."""

import itertools
import os
import re
import resource
import signal
import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from dispositions import SIGINT_DEFAULT, SIGINT_IGNORED
from pictures import picture, write_video
from reference import mean_2x2, rgb_to_yuv, to_limited

pytest.importorskip("rosbags")

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.demo_bag import DemoCamera, parse_rate, parse_stamp, record
from efv2_ros.cli.main import main
from efv2_ros.errors import Efv2Error
from efv2_ros.signals import catch_stop

SOON = 30.0  # seconds: only reached when something is broken
START = 1_700_000_000 * 10**9

CAPACITIES = {"480p": 921_600, "540p": 1_555_200, "1080p": 6_220_800}
TYPES = {
    **dict.fromkeys(["bgr8", "rgb8", "mono8", "nv12", "yuv422_yuy2"], "sensor_msgs/msg/Image"),
    **dict.fromkeys(["jpeg", "png"], "sensor_msgs/msg/CompressedImage"),
    **{size: f"hbm_img_msgs/msg/HbmMsg{size.upper()}" for size in CAPACITIES},
}
"""By encoding, or size of HbmMsg."""

FILES = [
    *[("mcap", compression) for compression in ("none", "chunk", "message", "file")],
    *[("sqlite3", compression) for compression in ("none", "message", "file")],
]


@pytest.fixture
def folder(tmp_path):
    """Three pictures without loss."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), picture(number))
    return folder


@pytest.fixture
def jpegs(tmp_path):
    folder = tmp_path / "jpegs"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.jpg"), picture(number))
    return folder


def camera(kind, **options):
    if kind in CAPACITIES:
        return DemoCamera("nv12", kind, **options)
    return DemoCamera(kind, **options)


def read(path):
    """The only topic, its messages and their frames."""
    with Bag(path) as bag:
        (topic,) = bag.topics.values()
        messages = list(bag.messages({topic.name}))
        frames = list(bag.images(topic))
        assert not bag.problems
    assert topic.count == len(messages) == len(frames)
    return topic, messages, frames


def stamps(frames):
    return [frame.header.nanoseconds for frame in frames]


def check_pixels(frame, bgr):
    """Those of one picture, within what each encoding rounds."""
    height, width = bgr.shape[:2]
    y, u, v = rgb_to_yuv(bgr[..., ::-1])
    assert (frame.height, frame.width) == (height, width)
    if frame.encoding == "nv12":
        assert frame.step == width
        planes = frame.data.reshape(height * 3 // 2, width).astype(float)
        assert np.abs(planes[:height] - y).max() <= 0.51
        assert np.abs(planes[height:, 0::2] - mean_2x2(u)).max() <= 1.36
        assert np.abs(planes[height:, 1::2] - mean_2x2(v)).max() <= 1.36
    elif frame.encoding == "yuv422_yuy2":
        assert frame.step == 2 * width
        limited, u, v = to_limited(y, u, v)
        pixels = frame.data.reshape(height, width, 2).astype(float)
        assert np.abs(pixels[..., 0] - limited).max() <= 1
        assert np.abs(pixels[:, 0::2, 1] - (u[:, 0::2] + u[:, 1::2]) / 2).max() <= 1.86
        assert np.abs(pixels[:, 1::2, 1] - (v[:, 0::2] + v[:, 1::2]) / 2).max() <= 1.86
    elif frame.encoding == "mono8":
        assert frame.step == width
        assert np.abs(frame.data.reshape(height, width) - y).max() <= 0.51
    else:
        assert frame.step == 3 * width
        order = {"bgr8": 1, "rgb8": -1}[frame.encoding]
        assert np.array_equal(frame.data.reshape(bgr.shape), bgr[..., ::order])


# What is in the bag


@pytest.mark.parametrize(("storage", "compression"), FILES)
@pytest.mark.parametrize("kind", TYPES)
def test_every_bag_reads_back(tmp_path, folder, jpegs, kind, storage, compression):
    source = jpegs if kind == "jpeg" else folder
    made = camera(kind, frame_id="front", rate=Fraction(30), start=5)
    recorded = record(tmp_path / "bag", [source], made, storage=storage, compression=compression)
    topic, messages, frames = read(tmp_path / "bag")
    assert topic.type_name == TYPES[kind]
    expected = [5, 33_333_338, 66_666_672]
    assert stamps(frames) == expected
    assert [message.log_time for message in messages] == expected
    files = list((tmp_path / "bag").iterdir())
    assert recorded == (3, 30, 66_666_667, sum(file.stat().st_size for file in files))
    suffix = {"mcap": ".mcap", "sqlite3": ".db3"}[storage]
    suffix += ".zstd" if compression == "file" else ""
    assert {file.name for file in files} == {f"bag{suffix}", "metadata.yaml"}
    for number, frame in enumerate(frames):
        assert frame.encoding == ("nv12" if kind in CAPACITIES else kind)
        if kind not in CAPACITIES:  # which has none
            assert frame.header.frame_id == "front"
        if kind in ("jpeg", "png"):
            (file,) = source.glob(f"{number}.*")
            assert frame.data.tobytes() == file.read_bytes()
        else:
            check_pixels(frame, picture(number))


@pytest.mark.parametrize("kind", TYPES)
def test_ros_reads_the_same_fields(tmp_path, folder, kind):
    serialization = pytest.importorskip("rclpy.serialization")
    package, _, name = TYPES[kind].split("/")
    message_type = getattr(pytest.importorskip(f"{package}.msg"), name)
    record(tmp_path / "bag", [folder], camera(kind, start=3 * 10**9 + 7, rate=Fraction(4)))
    _, messages, frames = read(tmp_path / "bag")
    for index, (message, frame) in enumerate(zip(messages, frames, strict=True)):
        ros = serialization.deserialize_message(message.data, message_type)
        stamp = ros.time_stamp if kind in CAPACITIES else ros.header.stamp
        assert (stamp.sec, stamp.nanosec) == (3, index * 250_000_000 + 7)
        if kind in ("jpeg", "png"):
            assert (ros.format, ros.header.frame_id) == (kind, "camera")
            assert bytes(ros.data) == bytes(frame.data)
            continue
        assert (ros.height, ros.width, ros.step) == (22, 36, frame.step)
        if kind in CAPACITIES:
            assert (ros.index, ros.data_size) == (index, 36 * 33)
            assert bytes(ros.encoding) == b"nv12".ljust(12, b"\0")
            assert len(ros.data) == CAPACITIES[kind]
            assert bytes(ros.data[: 36 * 33]) == bytes(frame.data)
            assert not np.any(ros.data[36 * 33 :])
        else:
            assert (ros.encoding, ros.is_bigendian, ros.header.frame_id) == (kind, 0, "camera")
            assert bytes(ros.data) == bytes(frame.data)


@pytest.mark.parametrize("rate", ["30000/1001", "29.97", "7", "1000000", "3/10000000"])
def test_stamps_do_not_drift(tmp_path, folder, rate):
    start = "12.987654321"
    made = DemoCamera("mono8", width=2, start=parse_stamp(start), rate=parse_rate(rate))
    record(tmp_path / "bag", [folder], made, frames=500)
    found = stamps(read(tmp_path / "bag")[2])
    for index, stamp in enumerate(found):
        exact = Fraction(start) * 10**9 + index * 10**9 / Fraction(rate)
        assert abs(stamp - exact) <= Fraction(1, 2)
    assert len(found) == 500


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_the_same_pictures_make_the_same_messages(tmp_path, folder, storage):
    for name in ("one", "other"):
        record(tmp_path / name, [folder], DemoCamera("jpeg"), storage=storage)
    one, other = (read(tmp_path / name)[1] for name in ("one", "other"))
    assert one == other
    assert [message.log_time for message in one] == [START, START + 10**8, START + 2 * 10**8]


def test_pictures_go_round_up_to_the_number_asked_for(tmp_path, folder):
    told = []
    record(
        tmp_path / "bag", [folder, folder / "0.png"], DemoCamera(), frames=6,
        on_progress=lambda *numbers: told.append(numbers),
    )  # fmt: skip
    frames = read(tmp_path / "bag")[2]
    for frame, number in zip(frames, (0, 1, 2, 0, 0, 1), strict=True):
        check_pixels(frame, picture(number))
    assert told == [(done, 6) for done in range(1, 7)]
    record(tmp_path / "short", [folder], DemoCamera(), frames=2)
    assert len(read(tmp_path / "short")[2]) == 2


@pytest.mark.parametrize("encoding", ["bgr8", "jpeg", "png"])
def test_images_are_resized_compressed_files_too(tmp_path, folder, jpegs, encoding):
    source = jpegs if encoding == "jpeg" else folder
    record(tmp_path / "bag", [source], DemoCamera(encoding, height=11))
    for frame in read(tmp_path / "bag")[2]:
        if encoding == "bgr8":
            assert (frame.width, frame.height, frame.step) == (18, 11, 54)
        else:
            assert cv2.imdecode(frame.data, cv2.IMREAD_COLOR).shape == (11, 18, 3)


def test_an_image_may_fill_an_hbm_message(tmp_path, folder):
    record(tmp_path / "bag", [folder], DemoCamera("nv12", "480p", width=960, height=640))
    for frame in read(tmp_path / "bag")[2]:
        assert (frame.width, frame.height, frame.data.size) == (960, 640, CAPACITIES["480p"])


def test_a_video_keeps_its_rate(tmp_path):
    video = write_video(tmp_path / "video.avi", ratio=(30000, 1001))
    recorded = record(tmp_path / "bag", [video], DemoCamera("rgb8"), frames=5)
    frames = read(tmp_path / "bag")[2]
    shades = [frame.data.mean() for frame in frames]
    assert shades == pytest.approx([40, 120, 200, 40, 120], abs=3)
    assert {(frame.width, frame.height) for frame in frames} == {(64, 48)}
    assert recorded.rate == Fraction(30000, 1001)
    assert stamps(frames)[3] == START + 100_100_000
    told = []
    record(tmp_path / "whole", [video], DemoCamera(), on_progress=lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]


# What others need to read it


def humble(document):
    """metadata.yaml as Humble's rosbag2_storage decodes it: each field's name and C++ type."""

    def unsigned(value):
        assert type(value) is int
        assert 0 <= value < 2**63

    def text(value):
        assert type(value) is str

    def known(node, **fields):
        for name, check in fields.items():
            check(node[name])

    def duration(node):
        known(node, nanoseconds=unsigned)

    def time(node):
        known(node, nanoseconds_since_epoch=unsigned)

    def each(check):
        return lambda values: [check(value) for value in values]

    def topic(node):
        known(node, name=text, type=text, serialization_format=text, offered_qos_profiles=text)

    known(
        document["rosbag2_bagfile_information"],
        version=unsigned,
        storage_identifier=text,
        duration=duration,
        starting_time=time,
        message_count=unsigned,
        topics_with_message_count=each(
            lambda node: known(node, topic_metadata=topic, message_count=unsigned)
        ),
        compression_format=text,
        compression_mode=text,
        relative_file_paths=each(text),
        files=each(
            lambda node: known(
                node, path=text, starting_time=time, duration=duration, message_count=unsigned
            )
        ),
    )
    return document["rosbag2_bagfile_information"]


@pytest.mark.parametrize(("storage", "compression"), FILES)
@pytest.mark.parametrize("reliable", [True, False])
def test_ros2_bag_info_finds_what_it_reads(tmp_path, folder, storage, compression, reliable):
    made = DemoCamera("nv12", reliable=reliable)
    record(tmp_path / "bag", [folder], made, storage=storage, compression=compression)
    info = humble(yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text()))
    assert info["version"] <= 8  # from 9 on, QoS is in a form that Humble does not read
    assert info["storage_identifier"] == storage
    assert info["message_count"] == 3
    assert info["duration"]["nanoseconds"] == 200_000_000
    assert info["starting_time"]["nanoseconds_since_epoch"] == START
    packed = compression in ("message", "file")
    assert info["compression_mode"] == (compression if packed else "")
    assert info["compression_format"] == ("zstd" if packed else "")
    (path,) = info["relative_file_paths"]
    assert (tmp_path / "bag" / path).is_file()
    (file,) = info["files"]
    assert (file["path"], file["message_count"]) == (path, 3)
    ((topic, count),) = [
        (each["topic_metadata"], each["message_count"])
        for each in info["topics_with_message_count"]
    ]
    assert (topic["name"], topic["type"], count) == ("/image", "sensor_msgs/msg/Image", 3)
    assert topic["serialization_format"] == "cdr"
    (profile,) = yaml.safe_load(topic["offered_qos_profiles"])
    assert profile["reliability"] == (1 if reliable else 2)  # rmw_qos_reliability_policy_e
    assert (profile["durability"], profile["history"], profile["depth"]) == (2, 1, 10)
    assert profile["deadline"] == {"sec": 9223372036, "nsec": 854775807}
    assert set(profile) == {
        "history", "depth", "reliability", "durability", "deadline", "lifespan", "liveliness",
        "liveliness_lease_duration", "avoid_ros_namespace_conventions",
    }  # fmt: skip
    (qos,) = read(tmp_path / "bag")[0].qos
    assert qos.reliability.name == ("RELIABLE" if reliable else "BEST_EFFORT")


@pytest.mark.parametrize("compression", ["none", "chunk"])
@pytest.mark.parametrize("kind", ["bgr8", "jpeg", "540p"])
def test_foxglove_opens_mcap(tmp_path, folder, kind, compression):
    reader = pytest.importorskip("mcap.reader")
    made = camera(kind, topic="/front/camera")
    record(tmp_path / "bag", [folder], made, frames=30, compression=compression)
    with (tmp_path / "bag" / "bag.mcap").open("rb") as file:
        mcap = reader.make_reader(file, validate_crcs=True)
        assert mcap.get_header().profile == "ros2"
        summary = mcap.get_summary()
        messages = list(mcap.iter_messages())
    assert len(messages) == 30
    times = [message.log_time for _, _, message in messages]
    assert times == [START + index * 10**8 for index in range(30)]
    assert times == [message.publish_time for _, _, message in messages]
    (schema,), (channel,) = summary.schemas.values(), summary.channels.values()
    assert (schema.name, schema.encoding) == (TYPES[kind], "ros2msg")
    if kind in CAPACITIES:
        assert f"uint8[{CAPACITIES[kind]}] data" in schema.data.decode()
    else:
        assert "MSG: std_msgs/Header" in schema.data.decode()
    assert (channel.topic, channel.message_encoding) == ("/front/camera", "cdr")
    assert yaml.safe_load(channel.metadata["offered_qos_profiles"])[0]["reliability"] == 1
    statistics = summary.statistics
    assert statistics.message_count == 30
    assert statistics.channel_message_counts == {channel.id: 30}
    assert (statistics.message_start_time, statistics.message_end_time) == (times[0], times[-1])
    assert statistics.chunk_count == len(summary.chunk_indexes)
    chunks = summary.chunk_indexes
    for earlier, later in itertools.pairwise(chunks):
        assert earlier.message_end_time < later.message_start_time
    assert {chunk.compression for chunk in chunks} == {"zstd" if compression == "chunk" else ""}
    if kind in CAPACITIES:  # larger than a chunk should be
        assert len(chunks) == 30


# What goes wrong


@pytest.fixture
def run(monkeypatch):
    """Run `efv2 record-demo` with these arguments."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments, status=0):
        result = CliRunner().invoke(main, ["record-demo", *map(str, arguments)])
        assert result.exit_code == status, result.output
        return result

    return run


def command(*arguments):
    return [sys.executable, "-m", "efv2_ros.cli", "record-demo", *map(str, arguments)]


def test_a_sentence_says_what_the_bag_is_and_what_comes_next(run, tmp_path, jpegs):
    (jpegs / "1b.jpg").write_bytes(b"no picture")
    out = tmp_path / "two words"
    result = run(
        out, jpegs, "--encoding", "nv12", "--width", 32, "--rate", "30000/1001", "--frames", 7,
        "--start", "3.000000004", "--frame-id", "front", "--topic", "/front/image_raw",
        "--camera-qos", "best_effort", "--storage", "sqlite3", "--compress", "message",
    )  # fmt: skip
    (sentence,) = result.stdout.splitlines()
    assert "7 images of nv12 on /front/image_raw (sensor_msgs/msg/Image)" in sentence
    assert "0.2002 s at 29.97 Hz" in sentence
    assert sentence.endswith(f"efv2 replay '{out}'")
    assert result.stderr.count("1b.jpg is not an image") == 1
    topic, _, frames = read(out)
    assert (topic.name, topic.qos[0].reliability.name) == ("/front/image_raw", "BEST_EFFORT")
    assert stamps(frames)[:3] == [3_000_000_004, 3_033_366_671, 3_066_733_337]
    assert {(frame.width, frame.height) for frame in frames} == {(32, 20)}
    assert {frame.header.frame_id for frame in frames} == {"front"}
    assert (out / "two words.db3").is_file()
    metadata = yaml.safe_load((out / "metadata.yaml").read_text())
    assert metadata["rosbag2_bagfile_information"]["compression_mode"] == "message"


@pytest.mark.parametrize(
    ("arguments", "topic", "kind"),
    [
        ([], "/image", "bgr8"),
        (["--encoding", "png"], "/image/compressed", "png"),
        (["--hbmem", "1080p"], "/hbmem_img", "1080p"),
    ],
)
def test_topics_are_where_such_images_are_looked_for(
    run, tmp_path, folder, arguments, topic, kind
):
    result = run(tmp_path / "bag", folder / "0.png", *arguments)
    assert f"1 image of {kind if kind in ('bgr8', 'png') else 'nv12'} on {topic} " in result.stdout
    found = read(tmp_path / "bag")[0]
    assert (found.name, found.type_name) == (topic, TYPES[kind])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nowhere"], 1, "there is no file nowhere"),
        ([__file__], 1, "neither a photo nor a video"),
        (["{folder}", "--topic", "image"], 1, "'image' is not a full topic name"),
        (["{folder}", "--topic", "/a//b"], 1, "'/a//b' is not a full topic name"),
        (["{folder}", "--hbmem", "480p", "--encoding", "rgb8"], 1, "made with nv12"),
        (["{folder}", "--hbmem", "480p", "--frame-id", "a"], 2, "HbmMsg has no header"),
        (["{folder}", "--storage", "sqlite3", "--compress", "chunk"], 1, "only mcap compresses"),
        (["{folder}", "--start", "2147483647.95"], 1, "image 1 is taken at 2147483648 s, later"),
        (["{folder}", "--start", "0.0000000001"], 2, "is not a stamp"),
        (["{folder}", "--start", "-1"], 2, "is not a stamp"),
        (["{folder}", "--rate", "0"], 2, "not between 0 and a million"),
        (["{folder}", "--rate", "1000001"], 2, "not between 0 and a million"),
        (["{folder}", "--rate", "30/0"], 2, "is not a rate"),
        (["{folder}", "--rate", "1e3"], 2, "is not a rate"),
        (["{folder}", "--hbmem", "480p", "--width", "960", "--height", "642"], 1,
         "960x642 pixels has 924480 bytes, and the HbmMsg of 480p holds 921600; 540p holds it"),
        (["{folder}", "--hbmem", "540p", "--width", "4000"], 1, "no HbmMsg holds it"),
        (["{folder}", "--encoding", "yuv422_yuy2", "--width", "1"], 1,
         "0.png: OpenCV cannot make a yuv422_yuy2 image of 1x1 pixels"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_leave_no_bag(run, tmp_path, folder, arguments, status, words):
    out = tmp_path / "bag"
    result = run(out, *[str(each).format(folder=folder) for each in arguments], status=status)
    assert words in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert status == 2 or len(result.stderr.splitlines()) == 1
    assert not result.stdout
    assert not out.exists()


def test_what_exists_is_left_as_it_is(run, tmp_path, folder):
    out = tmp_path / "bag"
    run(out, folder)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert "exists already" in run(out, folder, status=1).stderr
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_without_a_readable_picture_there_is_no_bag(run, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("0.jpg", "1.png"):
        (folder / name).write_bytes(b"no picture")
    for frames in ([], ["--frames", 3]):
        result = run(tmp_path / "bag", folder, *frames, status=1)
        assert result.stderr.count("left out: ") == 2
        assert f"Error: no image can be read from {folder}" in result.stderr
        assert not (tmp_path / "bag").exists()


def test_an_image_that_does_not_fit_removes_the_bag(tmp_path, folder):
    cv2.imwrite(str(folder / "9.png"), picture(9, 1300, 800))
    done = []
    with pytest.raises(Efv2Error, match=r"1300x800 pixels .* 1080p holds it"):
        record(
            tmp_path / "bag", [folder], DemoCamera("nv12", "540p"),
            on_progress=lambda *now: done.append(now),
        )  # fmt: skip
    assert len(done) == 3
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize(
    ("limit", "arguments"),
    [
        (1000, []),  # already when it is made, at least sqlite3
        (40_000, ["--frames", 20]),  # when it is closed
        (3_000_000, ["--hbmem", "1080p"]),  # in between
    ],
)
def test_a_full_disk_is_an_error_and_leaves_no_bag(tmp_path, folder, storage, limit, arguments):
    out = tmp_path / "bag"
    # Coverage, where it is measured, would write its file to that disk too.
    environment = {name: each for name, each in os.environ.items() if "COVERAGE" not in name}
    result = subprocess.run(
        command(out, folder, "--storage", storage, *arguments),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env=environment, capture_output=True, text=True, timeout=SOON, check=False,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"Error: cannot write the bag {out}: ")
    assert not out.exists()


# Ctrl-C


@pytest.mark.parametrize(
    ("compression", "number", "disposition"),
    [
        ("none", signal.SIGINT, SIGINT_DEFAULT),
        ("file", signal.SIGINT, SIGINT_DEFAULT),
        ("none", signal.SIGTERM, SIGINT_DEFAULT),
        ("none", signal.SIGTERM, SIGINT_IGNORED),
    ],
)
def test_ctrl_c_leaves_a_closed_bag_of_what_was_written(
    tmp_path, folder, compression, number, disposition
):
    out = tmp_path / "bag"
    process = subprocess.Popen(
        [
            *disposition,
            *command(out, folder, "--hbmem", "480p", "--frames", 10**6, "--compress", compression),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / "bag.mcap").exists() or (out / "bag.mcap").stat().st_size < 10**6:
        assert process.poll() is None, process.communicate()
    if disposition is SIGINT_IGNORED:
        process.send_signal(signal.SIGINT)  # which does nothing
        before = (out / "bag.mcap").stat().st_size
        while (out / "bag.mcap").stat().st_size < before + 10**6:
            assert process.poll() is None, process.communicate()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 130, stderr
    assert "the bag ends there" in stderr
    _, _, frames = read(out)
    assert len(frames) == int(re.search(r"(\d+) images", stdout)[1]) >= 1
    assert stamps(frames) == [START + index * 10**8 for index in range(len(frames))]


def test_stopped_before_the_first_image_there_is_no_bag(tmp_path, folder):
    recorded = record(tmp_path / "bag", [folder], DemoCamera(), should_stop=lambda: True)
    assert (recorded.frames, recorded.size) == (0, 0)
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_pressed_again_interrupts(ignored):
    """Where it was not ignored from the start, as it is by a `command &` of a script."""
    handler = signal.SIG_IGN if ignored else signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)
    try:
        with catch_stop() as pressed:
            assert not pressed()
            signal.raise_signal(signal.SIGINT)
            assert pressed() == (not ignored)
            if not ignored:
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupted_for_good_there_is_no_bag(tmp_path, folder):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "bag", [folder], DemoCamera(), on_progress=interrupt)
    assert not (tmp_path / "bag").exists()
