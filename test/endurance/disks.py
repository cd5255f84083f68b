"""What happens when nothing can be written: the disk is full, or read-only."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bag_maker import make
from http_server import serving
from live import efv2, running
from mounts import Disk, in_own_mounts
from rows import Length, Row
from talker import SOON, Talker
from tiny_models import projection

from efv2_ros.bags.bag import Bag
from efv2_ros.classify.classifier import Classifier
from efv2_ros.classify.model import load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.node import conversions
from efv2_ros.pictures.photo import read_photo
from efv2_ros.replay.offline import replay
from efv2_ros.replay.results import read_run
from efv2_ros.replay.run import save_jsonl
from efv2_ros.resources import share_path

_DISK_BYTES = 8 * 2**20
_PAGE = 4096
_IMAGES = 60

_stamps = itertools.count(1)
"""Seconds of the stamps of the images that classifiers are sent; those of bags are later."""


class _Command(NamedTuple):
    """A command that writes.

    Attributes:
        name: Its name.
        out: What it writes, on the disk.
        arguments: Of `efv2`.
        contents: Reads what it wrote, in a form that is the same after each success.
        kept: Endings of the files that it leaves for the next time when the disk is full.
        each: Whether it writes files one after the other, of which the whole ones stay.
        steady: Whether it always writes as many bytes.
    """

    name: str
    out: Path
    arguments: list[Any]
    contents: Callable[[Path], Any]
    kept: tuple[str, ...] = ()
    each: bool = False
    steady: bool = True


class _Place:
    """A disk, and what is needed to write on it.

    Attributes:
        disk: The disk.
        model: A model, which is on another disk.
        cache: The variable that moves the cache onto the disk.
        log: The variable that moves ROS's log onto the disk.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.disk = Disk(folder / "disk", _DISK_BYTES)
        self.model = projection(folder / "model.onnx")
        self.cache = {"XDG_CACHE_HOME": str(self.disk.folder / "cache")}
        self.log = {"ROS_LOG_DIR": str(self.disk.folder / "log")}
        for path in (*self.cache.values(), *self.log.values()):
            Path(path).mkdir()
        self._bag = make(folder / "bag", _IMAGES, topic="/lens/image")
        self._photos = share_path("photos")
        entry = {
            "input": {"height": 224, "width": 224}, "classes": 1000, "files": {"onnx": url}
        }  # fmt: skip
        self._catalog = folder / "catalog.json"
        self._catalog.write_text(json.dumps({"models": {"served": entry}}))
        self._run = folder / "run.jsonl"
        with (
            Bag(self._bag) as bag,
            load_model(ModelRequest(model_path=str(self.model)), pipelined=True) as model,
        ):
            save_jsonl(replay(bag, bag.image_topic(), Classifier(model)), self._run, timings=True)

    def commands(self, classifier: str, topic: str) -> list[_Command]:
        """All commands that write.

        Args:
            classifier: Full name of a running classifier.
            topic: The topic of its images.
        """
        folder, model = self.disk.folder, ["--model", self.model]
        play = [
            "play", self._bag, "--remap", f"/lens/image:={topic}", "--classifier", classifier,
            "--wait-for-results",
        ]  # fmt: skip
        jsonl, bag, golden = folder / "run.jsonl", folder / "bag", folder / "golden.jsonl"
        live, live_bag = folder / "live.jsonl", folder / "live"
        page, demo, drawn = folder / "page.html", folder / "demo", folder / "annotated"
        return [
            _Command(
                "replay --jsonl", jsonl, ["replay", self._bag, *model, "--jsonl", jsonl], _bytes
            ),
            _Command("replay --out", bag, ["replay", self._bag, *model, "--out", bag], _results),
            _Command(
                "replay --update-golden", golden,
                ["replay", self._bag, *model, "--golden", golden, "--update-golden"], _bytes,
            ),
            _Command("report", page, ["report", self._run, "--out", page], _bytes),
            _Command(
                "record-demo", demo,
                ["record-demo", demo, self._photos / "cards", "--width", 64, "--encoding", "png"],
                _folder,
            ),
            _Command(
                "classify --annotate", drawn,
                ["classify", self._photos, *model, "--annotate", drawn], _folder, each=True,
            ),
            self.fetch(),
            _Command(
                "play --results JSONL", live, [*play, "--results", live], _results, steady=False
            ),
            _Command(
                "play --results BAG", live_bag, [*play, "--results", live_bag], _results,
                steady=False,
            ),
        ]  # fmt: skip

    def fetch(self) -> _Command:
        """The command that downloads a model into the cache."""
        return _Command(
            "models fetch", self.disk.folder / "cache" / "efv2_ros",
            ["models", "fetch", "served", "--catalog", self._catalog], _models,
            kept=(".part", ".part.json"),
        )  # fmt: skip

    def run(self, command: _Command) -> tuple[int, str]:
        """Run a command with all that it writes on the disk: exit status, and what it printed."""
        return efv2(*command.arguments, environment={**self.cache, **self.log})


@contextmanager
def _place() -> Iterator[_Place]:
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        place = _Place(Path(folder), server.url("model.onnx"))
        server.behaviour.content = place.model.read_bytes()
        try:
            yield place
        finally:
            place.disk.unmount()


@in_own_mounts
def full_disk(length: Length) -> Row:
    """Write on a disk that is full, or that becomes full in the midst of the write.

    Cache, ROS's log and all results are on a small disk. A classifier is started while it is full.
    Then, again and again, one of the nine commands that write is run with less room than it needs,
    by a random number of pages, and a second time with room.

    Failures: a command that lacks room and does not end with status 1, or does not say so in a
    sentence; anything that is left of it, but for the part of a download that the next one
    continues; with room, a command that fails or writes something else than on an empty disk; an
    image that the classifier is sent meanwhile without its result, which must be the same each
    time.
    """
    row = Row("disk full", "writes without room")
    random = length.random("full_disk")
    with _place() as place:
        place.disk.fill()
        node = {"model_path": str(place.model), "queue_policy": "all"}
        with running(node, environment={**place.cache, **place.log}) as talker:
            _serve(talker, row, "started on a full disk")
            place.disk.clear()
            commands = place.commands(talker.process.name, talker.images.topic_name)
            random.shuffle(commands)
            wanted = {}
            for number in range(length.count(45)):
                command = commands[number % len(commands)]
                if command.name not in wanted:
                    wanted[command.name] = _reference(place, command)
                needed, contents = wanted[command.name]
                enough = needed if command.steady else needed * 3 // 4
                left = random.randrange(enough // _PAGE) * _PAGE
                context = f"{command.name} with {left} of {needed} bytes"
                row.failures += _without_room(place, command, left, contents, context)
                _serve(talker, row, context)
                place.disk.clear()
                row.failures += _with_room(place, command, contents, context)
                row.count += 1
            row.figures["commands"] = str(len(wanted))
            if not talker.process.running:
                row.failures.append(f"the classifier ended: {talker.process.stop()}")
    return row


@in_own_mounts
def read_only_cache(length: Length) -> Row:
    """Run with a cache and a folder of results that are read-only.

    A model was fetched into the cache before. A classifier of a model by its path is started; then
    the commands that read the cache and those that write are run in random order, and the
    classifier is sent an image after each. A classifier of the model that has to be built in the
    cache is started at the end, and one whose folder for ROS's log is read-only.

    Failures: a command that reads and does not work as ever; a command that writes and does not
    end with status 1 and a sentence that names the read-only file system; an image without its
    result; a classifier that cannot build its model and ends, or whose diagnostics do not say why
    and what helps; one without a log that does not say so; a change on the disk.
    """
    row = Row("cache read-only", "commands")
    with _place() as place:
        fetch = place.fetch()
        status, said = place.run(fetch)
        if status != 0:
            raise RuntimeError(f"{fetch.name} into an empty cache: {said}")
        place.disk.make_read_only()
        before = place.disk.files()
        node = {"model_path": str(place.model), "queue_policy": "all"}
        update = fetch._replace(arguments=[*fetch.arguments, "--update"])
        with running(node, environment=place.cache) as talker:
            _serve(talker, row, "model by path")
            writing = [
                update if command.name == fetch.name else command
                for command in place.commands(talker.process.name, talker.images.topic_name)
            ]
            reading = [fetch.arguments, ["models", "list"], ["models", "verify"]]
            tasks = [*((each.arguments, each.name) for each in writing),
                     *((each, "") for each in reading)]  # fmt: skip
            length.random("read_only_cache").shuffle(tasks)
            for number in range(length.count(40, least=2)):
                arguments, name = tasks[number % len(tasks)]
                status, said = efv2(*arguments, environment=place.cache)
                if name:
                    row.failures += _refused(name, status, said, "Read-only file system")
                elif status != 0:
                    row.failures.append(f"{arguments}: status {status}, {said}")
                _serve(talker, row, f"{name or arguments}, cache read-only")
                row.count += 1
        row.failures += _cannot_build(place) + _cannot_log(place)
        if place.disk.files() != before:
            row.failures.append(f"files changed: {place.disk.files() ^ before}")
    return row


def _cannot_build(place: _Place) -> list[str]:
    """Start a classifier of a model that has to be built in the read-only cache."""
    cards = {"model_size": "cards", "runtime": "onnx"}
    with running(cards, environment=place.cache, wait=False) as talker:
        if not talker.spin_until(talker.model_failed, SOON):
            return [f"a model cannot be built: no word of it; {talker.process.stop()}"]
        said = talker.model.message
        if "Read-only file system" not in said or "XDG_CACHE_HOME" not in said:
            return [f"a model cannot be built: {said}"]
        if not talker.process.running:
            return [f"a model cannot be built: the classifier ended; {talker.process.stop()}"]
    return []


def _cannot_log(place: _Place) -> list[str]:
    """Start a classifier that cannot write ROS's log, without which rclpy does not start."""
    node = {"model_path": str(place.model)}
    with running(node, environment=place.log, wait=False) as talker:
        talker.spin_until(lambda: not talker.process.running, SOON)
        said = talker.process.stop()
    if "Read-only file system" in said and "Traceback" not in said:
        return []
    return [f"the log cannot be written: {said}"]


def _reference(place: _Place, command: _Command) -> tuple[int, Any]:
    """Run a command on an empty disk: the bytes that it needs, and what it writes."""
    before = place.disk.free
    status, said = place.run(command)
    if status != 0:
        raise RuntimeError(f"{command.name} fails with room: {said}")
    needed, contents = before - place.disk.free, command.contents(command.out)
    place.disk.remove(command.out)
    return needed, contents


def _without_room(
    place: _Place, command: _Command, left: int, contents: Any, context: str
) -> list[str]:
    before = place.disk.files()
    place.disk.fill(left)
    status, said = place.run(command)
    found = _refused(context, status, said, "No space left on device")
    remains = {
        each
        for each in place.disk.files() - before
        # ROS's log of the command itself is as long as there was room.
        if not each.startswith("log/") and not each.endswith(command.kept or "\0")
    }
    if command.each or command.kept:
        remains = {each for each in remains if (place.disk.folder / each).is_file()}
    if command.each and contents.items() >= command.contents(command.out).items():
        remains.clear()
    if remains:
        found.append(f"{context} left {', '.join(sorted(remains))}")
    return found


def _with_room(place: _Place, command: _Command, contents: Any, context: str) -> list[str]:
    status, said = place.run(command)
    if status != 0:
        return [f"{context}, and again with room: status {status}, {said}"]
    same = command.contents(command.out) == contents
    place.disk.remove(command.out)
    return [] if same else [f"{context}, and again with room: wrote something else"]


def _refused(context: str, status: int, said: str, reason: str) -> list[str]:
    """What is wrong with the way in which a command says that it cannot write."""
    if status == 1 and reason in said and "Traceback" not in said:
        return []
    return [f"{context}: status {status} and {said!r}"]


def _serve(talker: Talker, row: Row, context: str) -> None:
    """Have an image classified; the result must be that of the first time."""
    photo = sorted(share_path("photos").glob("*.jpg"))[0]
    frame = read_photo(photo)
    header = frame.header._replace(sec=next(_stamps))
    talker.images.publish(conversions.image_message(replace(frame, header=header)))

    def results(sec: int) -> list[Any]:
        return [each.results for each in talker.results if each.header.stamp.sec == sec]

    if not talker.spin_until(lambda: results(header.sec), SOON):
        row.failures.append(f"{context}: the classifier gives no result; {talker.process.stop()}")
    elif results(header.sec)[0] != next(iter(talker.results)).results:
        row.failures.append(f"{context}: the classifier gives another result")


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def _folder(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.rglob("*") if each.is_file()}


def _models(path: Path) -> dict[str, bytes]:
    """The models of a cache; their lock files have the time in them."""
    return {each.name: each.read_bytes() for each in path.rglob("*.onnx")}


def _results(path: Path) -> list[Any]:
    return [(each.header, each.prediction) for each in read_run(path).frames]
