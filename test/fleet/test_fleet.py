"""Fleets of bags: their runs are those of single replays, to the last byte, whatever happens."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from bag_maker import PERIOD, START, STORAGES, big, compressed, image, make
from click.testing import CliRunner
from dask_cluster import dask_cluster
from tiny_models import fails_on_bright, projection

from efv2_ros.bags.bag import Bag
from efv2_ros.bags.writer import BagWriter
from efv2_ros.classify.options import ModelRequest, ViewOptions
from efv2_ros.cli.main import main
from efv2_ros.fleet.errors import FleetError
from efv2_ros.fleet.fleet import Fleet
from efv2_ros.fleet.results import Results
from efv2_ros.fleet.sources import find_bags
from efv2_ros.fleet.tasks import Job
from efv2_ros.workers.errors import WorkersError
from efv2_ros.workers.workers import Workers


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return projection(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def efv2(model_file, tmp_path, monkeypatch):
    """Runs `efv2 replay` in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        command = ["replay", *map(str, arguments), "--model", str(model_file), "--threads", "1"]
        return CliRunner().invoke(main, command)

    return run


@pytest.fixture
def job(model_file):
    return Job(ModelRequest(model_path=str(model_file), threads=1), ViewOptions(), chunk=10)


class InThisProcess(Workers):
    """Runs tasks here, one after the other; notes them."""

    def __init__(self):
        self.tasks, self.tags = [], []

    def submit(self, tag, function, *arguments):
        self.tasks.append((tag, function, arguments))

    def results(self, should_stop=lambda: False):
        while self.tasks and not should_stop():
            tag, function, arguments = self.tasks.pop(0)
            self.tags.append(tag)
            try:
                result = function(*arguments)
            except Exception as error:
                result = error
            yield tag, result

    def close(self):
        pass


def run(folder, job, bags, should_stop=lambda: False, **options):
    """Replay bags in this process; give back the tasks that it took."""
    workers = InThisProcess()
    results = Results(folder, job)
    fleet = Fleet(find_bags([str(each) for each in bags]), job, results, **options)
    fleet.run(workers, should_stop)
    return workers.tags, results


def summary(folder):
    return {each["name"]: each for each in json.loads((folder / "fleet.json").read_text())["bags"]}


def damage(bag):
    """Overwrite a page in the middle of an SQLite bag's file, which shows when it is read."""
    (file,) = bag.glob("*.db3")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xaa" * 4096
    file.write_bytes(content)


def single(efv2, bag, *options):
    result = efv2(bag, "--jsonl", "-", *options)
    assert result.exit_code in (0, 1), result.output
    return result.stdout_bytes


# Spans


@pytest.mark.parametrize(("storage", "compression"), STORAGES)
@pytest.mark.parametrize("images", [1, 7, 24, 25, 1000])
def test_spans_hold_every_message_once_and_in_order(tmp_path, storage, compression, images):
    path = make(tmp_path / "bag", 25, storage=storage, compression=compression)
    with Bag(path) as bag:
        topic = bag.image_topic()
        spans = bag.spans(topic, images)
        if compression == "file":
            assert spans == []
            return
        pieces = [list(bag.messages({topic.name}, span=span)) for span in spans]
        assert [each for piece in pieces for each in piece] == list(bag.messages({topic.name}))
        assert max(map(len, pieces)) <= images + 1
        assert bag.problems == []


def test_messages_of_one_instant_are_in_one_span(tmp_path):
    path = tmp_path / "bag"
    with BagWriter(path) as bag:
        for number in range(30):
            kind, data = image(number, START)
            bag.write("/image", kind, START + number // 10, data)
    with Bag(path) as bag:
        topic = bag.image_topic()
        pieces = [list(bag.messages({topic.name}, span=each)) for each in bag.spans(topic, 4)]
        assert [each for piece in pieces for each in piece] == list(bag.messages({topic.name}))


def test_a_bag_of_several_files_is_cut_in_each(tmp_path):
    first, second = make(tmp_path / "one", 20), tmp_path / "two"
    with BagWriter(second) as bag:
        for number in range(20):
            kind, data = image(number, START + (20 + number) * PERIOD)
            bag.write("/image", kind, START + (20 + number) * PERIOD, data)
    split = tmp_path / "split"
    split.mkdir()
    for number, each in enumerate((first, second)):
        next(each.glob("*.mcap")).rename(split / f"split_{number}.mcap")
    with Bag(split) as bag:
        topic = bag.image_topic()
        spans = bag.spans(topic, 10)
        assert [each.part for each in spans] == [0, 0, 1, 1]
        pieces = [each for span in spans for each in bag.messages({topic.name}, span=span)]
        assert pieces == list(bag.messages({topic.name}))


def test_a_damaged_bag_is_not_cut(tmp_path):
    path = make(tmp_path / "bag", 25)
    (file,) = path.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-100])
    with Bag(path) as bag:
        assert bag.spans(bag.image_topic(), 5) == []


# Runs


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_runs_are_those_of_single_replays(efv2, tmp_path, storage):
    for number, count in enumerate((3, 40, 0, 25)):
        if count:
            make(tmp_path / "bags" / str(number), count, storage=storage, kind=compressed)
    result = efv2("bags", "--results", "out", "--workers", 2, "--chunk", 10)
    assert result.exit_code == 0, result.output
    assert "3 of 3 bags, 68 images: 68 classified, 0 dropped" in result.output
    for name in ("0", "1", "3"):
        expected = single(efv2, f"bags/{name}")
        assert (tmp_path / "out" / f"{name}.jsonl").read_bytes() == expected
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "0.jsonl", "1.jsonl", "3.jsonl", "fleet.json",
    ]  # fmt: skip


def test_a_long_bag_is_many_tasks_and_short_ones_are_one(tmp_path, job):
    bags = [make(tmp_path / "long", 45), make(tmp_path / "short", 10)]
    tags, results = run(tmp_path / "out", job, bags)
    assert len([each for each in tags if each.bag == 0]) == 1 + 5
    assert len([each for each in tags if each.bag == 1]) == 1
    assert [results.bags[each].images for each in ("long", "short")] == [45, 10]


def test_smoothing_looks_back_so_bags_are_not_cut(efv2, tmp_path):
    make(tmp_path / "bag", 30)
    result = efv2("bag", "--results", "out", "--chunk", 5, "--smoothing", "ema")
    assert result.exit_code == 0, result.output
    expected = single(efv2, "bag", "--smoothing", "ema")
    assert (tmp_path / "out" / "bag.jsonl").read_bytes() == expected
    assert expected != single(efv2, "bag")


def test_timings_are_kept_if_they_are_wanted(efv2, tmp_path):
    make(tmp_path / "bag", 12)
    assert efv2("bag", "--results", "out", "--chunk", 5, "--timings").exit_code == 0
    lines = (tmp_path / "out" / "bag.jsonl").read_text().splitlines()[1:]
    assert all(json.loads(each)["milliseconds"]["infer"] > 0 for each in lines)


# What goes wrong


def test_a_damaged_bag_is_one_line_and_the_others_go_on(efv2, tmp_path):
    for name in "abc":
        make(tmp_path / "bags" / name, 60, storage="sqlite3", kind=big)
    next((tmp_path / "bags" / "b").glob("*.db3")).write_bytes(b"nonsense")
    damage(tmp_path / "bags" / "c")
    result = efv2("bags", "--results", "out", "--chunk", 10)
    assert result.exit_code == 1
    assert "3 of 3 bags, " in result.output
    lines = [each for each in result.stderr.splitlines() if "bags/" in each]
    assert len(lines) == 2
    assert lines[0].startswith(f"failed: bags/b: nothing of {tmp_path}/bags/b")
    assert lines[1].startswith("done: bags/c: ")
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == single(efv2, "bags/a")
    assert (tmp_path / "out" / "c.jsonl").read_bytes() == single(efv2, "bags/c")
    assert not (tmp_path / "out" / "b.jsonl").exists()


def test_a_bag_whose_damage_shows_late_is_replayed_whole(efv2, tmp_path, job):
    bag = make(tmp_path / "bag", 60, storage="sqlite3", kind=big)
    damage(bag)
    with Bag(bag) as opened:
        assert len(opened.spans(opened.image_topic(), 10)) == 6
    tags, results = run(tmp_path / "out", job, [bag])
    assert tags[-1].span == -1
    assert results.bags["bag"].problems
    assert (tmp_path / "out" / "bag.jsonl").read_bytes() == single(efv2, bag)


def test_a_bag_without_images_is_one_line(efv2, tmp_path):
    with BagWriter(tmp_path / "bags" / "none"):
        pass
    make(tmp_path / "bags" / "some")
    result = efv2("bags", "--results", "out")
    assert result.exit_code == 1
    assert "failed: bags/none: " in result.stderr
    assert "2 of 2 bags, 5 images" in result.output


def test_a_device_that_fails_is_a_problem_and_the_bag_is_tried_again(tmp_path):
    model = fails_on_bright(tmp_path / "model.onnx")
    request = ModelRequest(model_path=str(model), mean=(0, 0, 0), scale=(1, 1, 1))
    job = Job(request, ViewOptions())
    bag = tmp_path / "bag"
    with BagWriter(bag) as writer:
        kind, data = image(0, START, data=np.full(24 * 96, 255, np.uint8))
        writer.write("/image", kind, START, data)
    for _ in range(2):
        tags, results = run(tmp_path / "out", job, [bag])
        assert len(tags) == 1
        assert results.bags["bag"].status == "failed"
        assert results.bags["bag"].problems == ("1 images: infer",)


def test_a_model_that_cannot_be_used_ends_the_fleet(efv2, tmp_path):
    make(tmp_path / "bag")
    result = CliRunner().invoke(
        main, ["replay", "bag", "--results", "out", "--model", str(tmp_path / "missing.onnx")]
    )
    assert result.exit_code == 1
    assert "missing.onnx" in result.output


# Interruptions


def test_the_next_run_goes_on(tmp_path, job):
    bags = [make(tmp_path / "a", 5), make(tmp_path / "b", 45), make(tmp_path / "c", 5)]
    done = []
    tags, _ = run(tmp_path / "out", job, bags, lambda: len(done) >= 6, on_progress=done.append)
    assert [tuple(each) for each in tags] == [(0, -1), (1, -1), (2, -1), (1, 0), (1, 1)]
    assert (done[-1].bags, done[-1].images, done[-1].total) == (2, 28, 55)
    seen = []
    tags, results = run(tmp_path / "out", job, bags, on_progress=seen.append)
    assert [tuple(each) for each in tags] == [(1, 2), (1, 3), (1, 4)]
    assert (seen[0].images, seen[-1].images, seen[-1].counted) == (28, 55, True)
    assert run(tmp_path / "whole", job, bags)[1].bags.keys() == results.bags.keys()
    for name in "abc":
        one, two = (tmp_path / each / f"{name}.jsonl" for each in ("out", "whole"))
        assert one.read_bytes() == two.read_bytes()
    assert run(tmp_path / "out", job, bags)[0] == []


def test_a_bag_that_changed_is_replayed_again(tmp_path, job):
    bag = make(tmp_path / "bag", 5)
    run(tmp_path / "out", job, [bag])
    for each in bag.iterdir():
        each.unlink()
    bag.rmdir()
    make(bag, 7)
    tags, results = run(tmp_path / "out", job, [bag])
    assert len(tags) == 1
    assert results.bags["bag"].images == 7


def test_a_part_that_is_damaged_is_replayed_again(tmp_path, job):
    bag = make(tmp_path / "bag", 45)
    done = []
    run(tmp_path / "out", job, [bag], lambda: len(done) >= 4, on_progress=done.append)
    (tmp_path / "out" / ".parts" / "bag.1.jsonl").write_text("{nonsense")
    tags, _ = run(tmp_path / "out", job, [bag])
    assert [each.span for each in tags] == [1, 2, 3, 4] or [each.span for each in tags] == [
        1,
        3,
        4,
    ]
    run(tmp_path / "whole", job, [bag])
    assert (tmp_path / "out/bag.jsonl").read_bytes() == (tmp_path / "whole/bag.jsonl").read_bytes()


def test_results_of_other_settings_are_not_mixed(efv2, tmp_path, job):
    make(tmp_path / "bag")
    assert efv2("bag", "--results", "out").exit_code == 0
    result = efv2("bag", "--results", "out", "--top-k", 1)
    assert result.exit_code == 1
    assert "top_k was 5" in result.output
    (tmp_path / "out" / "fleet.json").write_text("[]")
    with pytest.raises(FleetError, match=r"fleet\.json cannot be read"):
        Results(tmp_path / "out", job)
    (tmp_path / "out" / "fleet.json").unlink()
    with pytest.raises(FleetError, match="holds runs, but no"):
        Results(tmp_path / "out", job)


def test_results_of_another_model_file_are_not_mixed(tmp_path, job):
    run(tmp_path / "out", job, [make(tmp_path / "one")])
    projection(tmp_path / "other.onnx", seed=1).replace(job.request.model_path)
    try:
        with pytest.raises(FleetError, match=r"holds results of the model .* on onnx"):
            run(tmp_path / "out", job, [make(tmp_path / "two")])
    finally:
        projection(Path(job.request.model_path))


def test_a_file_in_the_way(tmp_path, job):
    (tmp_path / "out").touch()
    with pytest.raises(FleetError, match="cannot make the folder"):
        Results(tmp_path / "out", job)


def test_ctrl_c_keeps_what_is_done(model_file, tmp_path):
    for number in range(3):
        make(tmp_path / "bags" / str(number), 200)
    command = [
        sys.executable, "-m", "efv2_ros.cli", "replay", "bags", "--results", "out",
        "--workers", "2", "--chunk", "5", "--model", str(model_file),
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        parts = tmp_path / "out" / ".parts"
        while not list(parts.glob("*.jsonl")):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    assert "The same command goes on" in printed
    assert list(parts.glob("*.jsonl"))
    assert not list((tmp_path / "out").rglob("*.tmp"))
    subprocess.run(command, cwd=tmp_path, check=True)
    assert [each["images"] for each in summary(tmp_path / "out").values()] == [200] * 3


# A cluster


def test_a_cluster_of_which_a_worker_dies(efv2, tmp_path):
    for number in range(6):
        make(tmp_path / "bags" / str(number), 60)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with dask_cluster(elsewhere) as cluster:

        def kill():
            while not list((tmp_path / "out").rglob("*.jsonl")):
                time.sleep(0.01)
            cluster.workers[0].kill()

        killer = threading.Thread(target=kill)
        killer.start()
        result = efv2("bags", "--results", "out", "--chunk", 10, "--cluster", cluster.address)
        killer.join()
        assert cluster.workers[0].poll() is not None
    assert result.exit_code == 0, result.output
    for number in range(6):
        expected = single(efv2, f"bags/{number}")
        assert (tmp_path / "out" / f"{number}.jsonl").read_bytes() == expected


def test_no_scheduler(efv2, tmp_path):
    make(tmp_path / "bag")
    result = efv2("bag", "--results", "out", "--cluster", "tcp://127.0.0.1:1")
    assert result.exit_code == 1
    assert "there is no Dask scheduler at tcp://127.0.0.1:1" in result.output


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one", "two"], "several bags need --results"),
        (["."], "several bags need --results"),
        (["list.txt"], "several bags need --results"),
        (["one", "--workers", "2"], "--workers: for --results"),
        (["one", "--cluster", "x"], "--cluster: for --results"),
        (["one", "--results", "out", "--jsonl", "x"], "--jsonl: for one bag"),
        (["one", "--results", "out", "--out", "x"], "--out: for one bag"),
        (["one", "--results", "out", "--golden", "x"], "--golden: for one bag"),
        (["one", "--results", "o", "--workers", "2", "--cluster", "x"], "--cluster has its own"),
    ],
)
def test_options_that_do_not_fit(efv2, tmp_path, arguments, message):
    make(tmp_path / "one")
    make(tmp_path / "two")
    (tmp_path / "list.txt").write_text("one\n")
    result = efv2(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_parquet_files_of_one_bag_and_of_many(efv2, tmp_path):
    pyarrow = pytest.importorskip("pyarrow.dataset")
    make(tmp_path / "bags" / "a", 3)
    make(tmp_path / "bags" / "b", 30)
    assert efv2("bags/a", "--parquet", "one").exit_code == 0
    assert efv2("bags", "--results", "out", "--parquet", "many", "--chunk", 10).exit_code == 0
    one, many = (
        pyarrow.dataset(tmp_path / each, partitioning="hive").to_table()
        for each in ("one", "many")
    )
    again = efv2("bags", "--results", "out", "--chunk", 10)
    assert "holds results of other settings (parquet was" in again.output
    assert one.num_rows == 3
    assert many["bag"].to_pylist() == ["a"] * 3 + ["b"] * 30
    columns = ["stamp", "class_id", "score", "label"]
    assert one.select(columns) == many.slice(0, 3).select(columns)


def test_workers_that_are_gone_are_told(tmp_path, job):
    class Gone(InThisProcess):
        def results(self, should_stop=lambda: False):
            raise WorkersError("gone")

    bag = make(tmp_path / "bag")
    fleet = Fleet(find_bags([str(bag)]), job, Results(tmp_path / "out", job))
    with pytest.raises(WorkersError, match="gone"):
        fleet.run(Gone())
