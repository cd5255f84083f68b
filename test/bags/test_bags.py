"""Bags as they are read: whole, in every storage, and damaged in every way that happens."""

import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

pytest.importorskip("rosbags")

import yaml
from bag_maker import (
    PERIOD,
    START,
    STORAGES,
    big,
    compressed,
    hbm,
    image,
    make,
    picture,
    stamps,
    write,
)

from efv2_ros.bags.bag import Bag, Unreadable
from efv2_ros.bags.errors import BagError
from efv2_ros.bags.writer import BagWriter
from efv2_ros.messages.message import message, serialize

pytestmark = pytest.mark.numpy2


def read(path, topic=""):
    """Stamps and problems."""
    with Bag(path) as bag:
        frames = list(bag.images(bag.image_topic(topic)))
        return [frame.header.nanoseconds for frame in frames], bag.problems


def storage_file(bag):
    (file,) = (each for each in bag.iterdir() if each.suffix != ".yaml")
    return file


@pytest.mark.parametrize(("storage", "compression"), STORAGES)
@pytest.mark.parametrize("kind", [image, compressed, hbm])
def test_every_storage_and_type(tmp_path, storage, compression, kind):
    path = make(tmp_path / "bag", 4, storage=storage, compression=compression, kind=kind)
    with Bag(path) as bag:
        topic = bag.image_topic()
        frames = list(bag.images(topic, frame_id="camera"))
        assert bag.problems == []
        assert (topic.name, topic.count) == ("/image", 4)
    assert [frame.header.nanoseconds for frame in frames] == stamps(4)
    assert {frame.header.frame_id for frame in frames} == {"camera"}
    if kind is image:
        for number, frame in enumerate(frames):
            assert (frame.data == picture(number).reshape(-1)).all()
            assert (frame.height, frame.width, frame.step) == (24, 32, 96)


@pytest.mark.parametrize(("storage", "compression"), STORAGES)
def test_without_its_description_a_bag_is_whole_all_the_same(tmp_path, storage, compression):
    path = make(tmp_path / "bag", 4, storage=storage, compression=compression)
    (path / "metadata.yaml").unlink()
    assert read(path) == (stamps(4), [])
    assert read(storage_file(path)) == (stamps(4), [])


@pytest.mark.parametrize(("storage", "compression"), STORAGES)
def test_what_is_cut_off_is_read_as_far_as_it_goes(tmp_path, storage, compression):
    path = make(tmp_path / "bag", 60, storage=storage, compression=compression, kind=big)
    file = storage_file(path)
    contents = file.read_bytes()
    file.write_bytes(contents[: len(contents) * 2 // 3])
    found, problems = read(path)
    assert 25 < len(found) < 50
    assert found == stamps(60)[: len(found)]
    assert any("damaged" in problem for problem in problems)
    assert len(set(problems)) == len(problems)
    assert all(file.name.split(".")[0] in problem for problem in problems)


def test_a_damaged_page_costs_only_the_messages_on_it(tmp_path):
    path = make(tmp_path / "bag", 60, storage="sqlite3", kind=big)
    file = storage_file(path)
    contents = bytearray(file.read_bytes())
    middle = len(contents) // 2 // 4096 * 4096
    contents[middle : middle + 4096] = b"\xaa" * 4096
    file.write_bytes(contents)
    found, problems = read(path)
    assert 55 <= len(set(found)) == len(found) < 60
    assert {stamps(60)[0], stamps(60)[-1]} <= set(found)
    assert any("is damaged after message" in problem for problem in problems)


def test_a_damaged_chunk_costs_only_the_messages_in_it(tmp_path):
    """Chunks of Foxglove's own writer, which have checksums."""
    from mcap.writer import CompressionType, Writer

    path = tmp_path / "bag.mcap"
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=100_000, compression=CompressionType.NONE)
        writer.start(profile="ros2")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        channel = writer.register_channel("/image", "cdr", schema)
        for number, stamp in enumerate(stamps(60)):
            writer.add_message(channel, stamp, big(number, stamp)[1], stamp)
        writer.finish()
    whole, problems = read(path)
    assert (whole, problems) == (stamps(60), [])
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 255
    path.write_bytes(contents)
    found, problems = read(path)
    assert 50 <= len(found) < 60
    assert sorted(found) == found
    assert {stamps(60)[0], stamps(60)[-1]} <= set(found)
    assert any("chunk" in problem for problem in problems)


def test_damage_that_shows_while_reading_repeats_nothing(tmp_path):
    """The index says all is well; the chunk it points to is not. Two images are alike."""
    from mcap.writer import CompressionType, Writer

    path = tmp_path / "bag.mcap"
    twins = [*stamps(30), stamps(30)[3]]
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=100_000, compression=CompressionType.ZSTD)
        writer.start(profile="ros2")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        channel = writer.register_channel("/image", "cdr", schema)
        for stamp in twins:
            number = (stamp - START) // PERIOD
            writer.add_message(channel, stamp, big(number, stamp)[1], stamp)
        writer.finish()
    contents = bytearray(path.read_bytes())
    start = len(contents) * 2 // 3
    contents[start : start + 64] = bytes(64)
    path.write_bytes(contents)
    found, problems = read(path)
    assert found.count(stamps(30)[3]) == 2
    assert 20 <= len(set(found)) == len(found) - 1
    assert len(found) < 31
    assert problems


def test_a_recording_that_was_killed(tmp_path):
    """SQLite's journal holds what is not in the file yet, and there is no metadata.yaml."""
    whole = make(tmp_path / "whole", 6, storage="sqlite3")
    path = tmp_path / "killed"
    path.mkdir()
    writer = sqlite3.connect(storage_file(whole))
    writer.execute("PRAGMA journal_mode = WAL")
    (topic,) = writer.execute("SELECT id FROM topics").fetchone()
    for number in (6, 7):
        data = image(number, START + number * PERIOD)[1]
        writer.execute(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
            (topic, START + number * PERIOD, data),
        )
    writer.commit()
    for file in whole.iterdir():
        if file.suffix != ".yaml":
            shutil.copy(file, path / file.name)
    writer.close()
    assert any(file.name.endswith("-wal") for file in path.iterdir())
    assert read(path) == (stamps(8), [])


def test_several_files_come_in_the_order_of_their_numbers(tmp_path):
    path = tmp_path / "bag"
    path.mkdir()
    for number in range(11):
        part = write(
            tmp_path / f"part_{number}",
            [("/image", stamps(11)[number], image(number, stamps(11)[number]))],
        )
        storage_file(part).rename(path / f"bag_{number}.mcap")
    assert read(path) == (stamps(11), [])
    with Bag(path) as bag:
        assert bag.image_topic().count == 11
    (path / "bag_9.mcap").write_bytes(b"")
    found, problems = read(path)
    assert found == [*stamps(11)[:9], stamps(11)[10]]
    assert any("bag_9.mcap" in problem for problem in problems)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_description_that_tells_another_qos_costs_nothing(tmp_path, storage):
    path = make(tmp_path / "bag", 4, storage=storage)
    description = (path / "metadata.yaml").read_text()
    assert "depth: 10" in description
    (path / "metadata.yaml").write_text(description.replace("depth: 10", "depth: 7"))
    assert read(path) == (stamps(4), [])
    with Bag(path) as bag:
        assert bag.image_topic().qos[0].depth == 10


def test_qos_that_only_the_description_tells(tmp_path):
    path = make(tmp_path / "bag", 2, storage="sqlite3")
    with sqlite3.connect(storage_file(path)) as database:
        database.execute("UPDATE topics SET offered_qos_profiles = ''")
    database.close()
    with Bag(path) as bag:
        assert bag.image_topic().qos[0].depth == 10
    description = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(description.replace("depth:", "breadth:"))
    with Bag(path) as bag:
        assert bag.image_topic().qos == ()


def test_a_description_that_cannot_be_read_is_as_none(tmp_path):
    path = make(tmp_path / "bag", 4)
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    assert read(path) == (stamps(4), [])


def test_a_missing_part_is_a_problem(tmp_path):
    path = make(tmp_path / "bag", 3)
    description = (path / "metadata.yaml").read_text()
    gone = description.replace("- bag.mcap", "- bag.mcap\n  - bag_1.mcap")
    (path / "metadata.yaml").write_text(gone)
    found, problems = read(path)
    assert found == stamps(3)
    assert any("bag_1.mcap" in problem for problem in problems)


def test_an_unreadable_message_is_not_the_end(tmp_path):
    kind, data = image(1, START)
    path = write(
        tmp_path / "bag",
        [
            ("/image", START, image(0, START)),
            ("/image", START + 7, (kind, data[:30])),
            ("/image", START + 9, (kind, b"\0\1\0\0" + b"\xff" * 40)),
            ("/image", START + 20, image(2, START + 20)),
        ],
    )
    with Bag(path) as bag:
        frames = list(bag.images(bag.image_topic()))
        assert bag.problems == []
    assert [isinstance(each, Unreadable) for each in frames] == [False, True, True, False]
    assert [each.header.nanoseconds for each in frames] == [
        START,
        START + 7,
        START + 9,
        START + 20,
    ]
    assert frames[1].error.fault == "message"


# Which topic

TEXT = ("std_msgs/msg/String", serialize("std_msgs/msg/String", data="hello"))


def test_the_only_topic_of_images_is_found(tmp_path):
    path = write(tmp_path / "bag", [("/chat", 1, TEXT), ("/camera", 2, compressed(0, 2))])
    with Bag(path) as bag:
        assert bag.image_topic().name == "/camera"
        assert bag.image_topic().transport == "compressed"
        assert bag.image_topic("/camera") == bag.image_topic()


@pytest.mark.parametrize("cut", [False, True])
def test_one_topic_of_several_is_read(tmp_path, cut):
    messages = []
    for number, stamp in enumerate(stamps(60)):
        messages.append((("/left", "/right")[number % 2], stamp, big(number, stamp)))
    path = write(tmp_path / "bag", messages)
    if cut:
        file = storage_file(path)
        file.write_bytes(file.read_bytes()[:-100])
    found, problems = read(path, "/right")
    assert found == stamps(60)[1::2][: len(found)]
    assert len(found) > 10
    assert bool(problems) == cut


@pytest.mark.parametrize(
    ("topic", "sentence"),
    [
        ("", r"/left \(sensor_msgs/msg/Image\), /right .*choose one"),
        ("/none", "has no topic /none; topics of images: /left"),
        ("/chat", "/chat carries std_msgs/msg/String; topics of images: /left"),
    ],
)
def test_a_topic_that_cannot_be_told(tmp_path, topic, sentence):
    path = write(
        tmp_path / "bag",
        [("/left", 1, image(0, 1)), ("/right", 2, image(1, 2)), ("/chat", 3, TEXT)],
    )
    with Bag(path) as bag:
        assert bag.image_topic("/right").name == "/right"
        with pytest.raises(BagError, match=sentence):
            bag.image_topic(topic)


def test_a_bag_without_images(tmp_path):
    path = write(tmp_path / "bag", [("/chat", 1, TEXT)])
    with Bag(path) as bag, pytest.raises(BagError, match="none; nothing to classify"):
        bag.image_topic()


@pytest.mark.parametrize(
    ("name", "contents", "sentence"),
    [
        ("gone", None, "there is no bag"),
        ("empty.mcap", b"", "nothing of .* can be read"),
        ("empty.db3", b"", "nothing of .* can be read"),
        ("noise.mcap", b"\x89MCAP0\r\n" + b"\xff" * 100, "nothing of .* can be read"),
        ("noise.db3", b"SQLite format 3\0" + b"\xff" * 5000, "nothing of .* can be read"),
        ("noise.mcap.zstd", b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "nothing of .* can be read"),
        ("photo.jpg", b"\xff\xd8\xff", "nothing of .* can be read"),
    ],
)
def test_no_bag_at_all(tmp_path, name, contents, sentence):
    path = tmp_path / name
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(BagError, match=sentence):
        Bag(path)


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BagError, match="it holds no storage file"):
        Bag(tmp_path)


# Writing


def test_a_bag_is_never_written_over(tmp_path):
    path = make(tmp_path / "bag", 1)
    with pytest.raises(BagError, match="exists already"):
        make(path, 2)
    assert read(path) == (stamps(1), [])


def test_only_mcap_compresses_chunks(tmp_path):
    with pytest.raises(BagError, match="only mcap"):
        BagWriter(tmp_path / "bag", storage="sqlite3", compression="chunk")


def test_a_type_nobody_knows(tmp_path):
    name = "nobody_msgs/msg/Nothing"
    with BagWriter(tmp_path / "bag") as bag, pytest.raises(BagError, match=name):
        bag.write("/topic", name, 1, b"")


def test_what_a_bag_is_about_is_kept(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.describe({"model": "s0", "number": 3})
        bag.write("/chat", TEXT[0], 1, TEXT[1])
    with Bag(tmp_path / "bag") as bag:
        assert bag.info() == {"model": "s0", "number": 3}
    with Bag(make(tmp_path / "other", 1)) as bag:
        assert bag.info() == {}


def test_humble_can_read_the_description(tmp_path):
    """Its reader wants QoS as text, which later versions of the format have as a list."""
    path = make(tmp_path / "bag", 1)
    document = yaml.safe_load((path / "metadata.yaml").read_text())
    description = document["rosbag2_bagfile_information"]
    (topic,) = description["topics_with_message_count"]
    assert description["version"] == 8
    (qos,) = yaml.safe_load(topic["topic_metadata"]["offered_qos_profiles"])
    assert (qos["reliability"], qos["durability"], qos["history"], qos["depth"]) == (1, 2, 1, 10)


def test_times_before_the_epoch_do_not_stop_a_recording(tmp_path):
    path = write(tmp_path / "bag", [("/image", -5, image(0, START))])
    assert read(path) == ([START], [])


def test_the_types_have_the_hashes_of_the_official_packages():
    from test_interfaces import HASHES

    from efv2_ros.messages.typestore import typestore

    for kind, digest in HASHES.items():
        name = f"vision_msgs/msg/{kind.__name__}"
        assert typestore().hash_rihs01(name) == f"RIHS01_{digest}"


def test_messages_are_those_of_rclpy():
    serialization = pytest.importorskip("rclpy.serialization")
    from sensor_msgs.msg import Image

    read_back = serialization.deserialize_message(image(3, START)[1], Image)
    assert (read_back.header.stamp.sec, read_back.header.frame_id) == (1_700_000_000, "camera")
    assert bytes(read_back.data) == picture(3).tobytes()
    assert message("std_msgs/msg/String", data="x").data == "x"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_nothing_is_left_of_a_bag_that_cannot_be_closed(tmp_path, storage):
    """As a recording of `efv2 play` on a disk that becomes full."""
    code = (
        "import resource\n"
        "from pathlib import Path\n"
        "from bag_maker import image\n"
        "from efv2_ros.bags.errors import BagError\n"
        "from efv2_ros.bags.writer import BagWriter\n"
        "try:\n"
        f"    with BagWriter(Path('bag'), storage='{storage}') as bag:\n"
        "        kind, data = image(0, 1)\n"
        "        bag.write('/image', kind, 1, data)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "except BagError as error:\n"
        "    print(error)\n"
    )
    environment = {name: each for name, each in os.environ.items() if "COVERAGE" not in name}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("cannot write the bag bag: "), done.stderr
    assert list(tmp_path.iterdir()) == []
