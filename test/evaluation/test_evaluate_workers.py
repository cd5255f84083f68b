"""`efv2 evaluate` in workers: the same answers as in one process, whatever happens to them."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import standins
import worker_tasks
from click.testing import CliRunner
from tiny_models import projection

from efv2_ros.classify.options import ModelRequest
from efv2_ros.cli.main import main
from efv2_ros.evaluation import evaluation as evaluations
from efv2_ros.evaluation.evaluation import open_evaluation
from efv2_ros.evaluation.inputs import load_models
from efv2_ros.evaluation.summary import summarize
from efv2_ros.runtimes.base import DeviceLostError
from efv2_ros.workers.cluster import DaskWorkers
from efv2_ros.workers.errors import WorkersError
from efv2_ros.workers.processes import LocalWorkers

CLASSES = 20
IMAGES = 30
BROKEN = ("0/00.png", "3/13.png", "4/29.png")


@pytest.fixture(autouse=True)
def groups_of_four(monkeypatch):
    monkeypatch.setattr(evaluations, "GROUP", 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with images of five classes, some of them broken, and two models."""
    folder, random = tmp_path_factory.mktemp("made"), np.random.RandomState(3)
    for number in range(IMAGES):
        path = folder / f"photos/{number % 5}/{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = random.randint(0, 256, (7, 7, 3)).astype(np.uint8)
        cv2.imwrite(str(path), np.kron(colours, np.ones((32, 32, 1), np.uint8)))
    for name in BROKEN:
        (folder / "photos" / name).write_bytes(b"no image")
    projection(folder / "one.onnx", CLASSES)
    projection(folder / "two.onnx", CLASSES, seed=1)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """The same as the test's own, and the working folder."""
    own = shutil.copytree(made, tmp_path / "own")
    monkeypatch.chdir(own)
    return own


@pytest.fixture
def opened(folder):
    """`with opened() as evaluation`: an evaluation of a model on the images."""

    @contextmanager
    def opened(model="one.onnx", **options):
        request = ModelRequest(model_path=model, slots=2, **options)
        with (
            load_models([request]) as models,
            open_evaluation(Path("photos"), models) as evaluation,
        ):
            yield evaluation

    return opened


@pytest.fixture
def expected(opened):
    """The summary of a run in this process."""
    with opened() as evaluation:
        assert evaluation.run()
        evaluation.checkpoint.delete()
        return summarize(evaluation)


def evaluate(*arguments, status=1):
    result = CliRunner().invoke(main, ["evaluate", "photos", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


@pytest.mark.parametrize("other", [(), ("--compare-model", "two.onnx")])
def test_processes_give_the_same_json(folder, other):
    words = ["--model", "one.onnx", *other, "--restart", "--json", "-"]
    one, two = evaluate(*words), evaluate(*words, "--workers", 2)
    assert two.stdout == one.stdout
    assert "decode 3" in two.stderr
    found = json.loads(two.stdout)
    assert found["images"] == IMAGES - len(BROKEN)
    assert [each["file"] for each in found["failed"]] == list(BROKEN)
    assert "own/photos" not in found["failed"][0]["reason"]


def test_a_cluster_gives_the_same_although_a_worker_dies(
    folder, opened, expected, tmp_path, monkeypatch
):
    from dask_cluster import dask_cluster

    monkeypatch.chdir(tmp_path)
    with dask_cluster(tmp_path) as cluster, DaskWorkers(cluster.address) as workers:
        monkeypatch.chdir(folder)
        told = []

        def on_answer(image, answer):
            told.append(image)
            cluster.workers[0].kill()

        with opened() as evaluation:
            assert evaluation.run(on_answer, workers=workers, threads=1)
            assert sorted(told) == sorted(evaluation.dataset.images)
            assert summarize(evaluation) == expected
        assert cluster.workers[0].poll() is not None


def test_what_was_answered_is_not_answered_again(opened, expected):
    told = []
    with opened() as evaluation, LocalWorkers(2) as workers:
        stop = lambda: len(evaluation.answers) >= 9  # noqa: E731
        assert not evaluation.run(None, stop, workers)
        before = set(evaluation.answers)
    assert 9 <= len(before) < IMAGES - len(BROKEN)
    with opened() as evaluation, LocalWorkers(2) as workers:
        assert set(evaluation.answers) == before
        assert evaluation.run(lambda image, answer: told.append(image.name), workers=workers)
        assert len(told) == len(set(told)) == IMAGES - len(before)
        assert not before & set(told)
        assert summarize(evaluation) == expected


class Deadly(LocalWorkers):
    """Processes of which every one dies that gets the second task."""

    def submit(self, tag, function, *arguments):
        if tag == 1:
            function, arguments = worker_tasks.die, ()
        super().submit(tag, function, *arguments)


def test_images_that_kill_every_process_are_failures(opened, expected):
    with opened() as evaluation, Deadly(2) as workers:
        assert evaluation.run(workers=workers)
        lost = [each for each in evaluation.failures if each.cause == "worker"]
        assert [each.image for each in lost] == list(evaluation.dataset.images[4:8])
        assert {each.reason for each in lost} == {"its process died, 3 times"}
        order = [each.image.name for each in evaluation.failures]
        assert order == sorted(order)
        assert len(order) == len(BROKEN) + 4
    with opened() as evaluation:
        assert len(evaluation.answers) == IMAGES - len(BROKEN) - 4
        assert evaluation.run()
        assert summarize(evaluation) == expected


def test_a_worker_with_another_model_ends_the_run(folder, opened):
    with opened() as evaluation, LocalWorkers(1) as workers:
        shutil.copy(folder / "two.onnx", folder / "one.onnx")
        with pytest.raises(WorkersError, match=r"has onnx .* with a model of SHA-256"):
            evaluation.run(workers=workers)


def test_a_bpu_that_is_lost_ends_the_run(opened, bpu, monkeypatch):
    standins.bin_model(Path("one.bin"))
    for name, value in standins.environment(dead_at=3).items():
        monkeypatch.setenv(name, value)
    with (
        opened("one.bin", runtime="libdnn", infer_timeout=0.05) as evaluation,
        LocalWorkers(1) as workers,
        pytest.raises(DeviceLostError),
    ):
        evaluation.run(workers=workers)


def test_an_error_of_the_callback_ends_the_run(opened):
    def fail(image, answer):
        raise KeyError(image.name)

    with opened() as evaluation, LocalWorkers(1) as workers, pytest.raises(KeyError, match="png"):
        evaluation.run(fail, workers=workers)


def test_wrong_words(folder):
    result = evaluate("--model", "one.onnx", "--workers", 2, "--cluster", "tcp://x:1", status=2)
    assert "--workers are of this machine" in result.stderr
    result = evaluate("--model", "one.onnx", "--cluster", "tcp://127.0.0.1:1")
    assert "no Dask scheduler at tcp://127.0.0.1:1" in result.stderr
    assert "Stopped" not in result.stderr
