"""`efv2 train` as people run it: interrupted, killed, on two processes, on folders with faults."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from http_server import serving

pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.training

SOON = 300.0  # seconds: only reached when something is broken
COLOURS = {"blue": (200, 30, 30), "green": (30, 200, 30), "red": (30, 30, 200)}
OPTIONS = ["--weights", "none", "--epochs", "2", "--small-epochs", "1", "--small-side", "64",
           "--batch-size", "8", "--learning-rate", "2e-3", "--workers", "1", "--precision", "fp32",
           "--augment", "", "--mixup", "0", "--ema-decay", "0.5"]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes that a network tells apart at once."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(12):
            noise = random.integers(0, 50, (60, 80, 3))
            cv2.imwrite(str(folder / name / f"{number}.png"), (noise + colour).astype(np.uint8))
    return folder


def command(photos, out, *more):
    return ["-m", "efv2_ros.cli", "train", str(photos), "--out", str(out), *OPTIONS, *more]


def train(photos, out, *more, launcher=(sys.executable,)):
    """Run it to its end."""
    return subprocess.run(
        [*launcher, *command(photos, out, *more)],
        check=False, capture_output=True, text=True, timeout=SOON, env=environment(),
    )  # fmt: skip


def environment():
    # Two threads add up in another order than one, on a machine of any size.
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def metrics(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    ended = train(photos, out)
    assert ended.returncode == 0, ended.stderr
    return out, ended


def test_the_folder_holds_what_people_need(undisturbed, photos):
    out, ended = undisturbed
    assert "starting from random weights" in ended.stderr
    assert f"{out}: top-1 100.00 % of 3 photos" in ended.stdout
    assert json.loads((out / "labels.json").read_text()) == sorted(COLOURS)
    assert [row["side"] for row in metrics(out)] == [64, 224]
    for name in ("curves.png", "confusion.png"):
        assert cv2.imread(str(out / name)) is not None
    card = (out / "README.md").read_text()
    assert "| photos | 33 to train with, 3 to validate with |" in card
    assert "epoch 2 of 2" in card


def test_other_commands_take_the_folder_as_a_model(undisturbed, photos):
    out, _ = undisturbed
    classified = subprocess.run(
        [sys.executable, "-m", "efv2_ros.cli", "classify", "--catalog", out / "catalog.yaml",
         "--size", out.name, "--json", *(photos / name / "0.png" for name in COLOURS)],
        check=True, capture_output=True, text=True, timeout=SOON,
    )  # fmt: skip
    answers = json.loads(classified.stdout)
    assert not any(each["untrained"] for each in answers)
    assert [each["results"][0]["label"] for each in answers] == list(COLOURS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_ended_goes_on_to_the_same_end(undisturbed, photos, tmp_path, number):
    expected, _ = undisturbed
    out = tmp_path / "run"
    # With a checkpoint after every step, it is ended between two of them, or in one.
    process = subprocess.Popen(
        [sys.executable, *command(photos, out, "--checkpoint-minutes", "0")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=environment(),
    )  # fmt: skip
    end = time.monotonic() + SOON
    while not (out / "checkpoints" / "latest.json").is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, number)  # the workers too, as a terminal does
    _, said = process.communicate(timeout=SOON)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, said
        assert "stopped with a checkpoint" in said
    assert len(metrics(out) if (out / "metrics.jsonl").exists() else []) < 2

    ended = train(photos, out)
    assert ended.returncode == 0, ended.stderr
    assert "going on in epoch" in ended.stderr
    assert metrics(out) == metrics(expected)
    weights = "model.safetensors"
    assert (out / weights).read_bytes() == (expected / weights).read_bytes()


@pytest.mark.parametrize("poll", [4, 5])  # after the last of 4 steps, and while it validates
def test_a_stop_at_the_end_of_an_epoch_loses_nothing(photos, tmp_path, poll):
    from efv2_ros.training.folder import RunFolder
    from efv2_ros.training.options import TrainingOptions
    from efv2_ros.training.photos import find_photos
    from efv2_ros.training.training import Training

    options = TrainingOptions(
        weights="none", epochs=1, small_epochs=1, small_side=64, batch_size=8, workers=0,
        precision="fp32",
    )  # fmt: skip
    found = find_photos(photos)

    def run(name, should_stop):
        folder = RunFolder(tmp_path / name, name, found.classes)
        training = Training(found, options, folder, print, lambda: False, lambda *_: None)
        return training.run(should_stop, lambda _: None)

    polls = iter(range(1, 100))
    assert not run("stopped", lambda: next(polls) == poll)
    assert next(polls) == poll + 1
    assert run("stopped", lambda: False)
    assert run("undisturbed", lambda: False)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "undisturbed")


def test_words_that_are_not_timms_are_refused(photos, tmp_path):
    refused = train(photos, tmp_path / "run", "--augment", "strong")
    assert refused.returncode == 1
    assert "strong does not describe RandAugment" in " ".join(refused.stderr.split())


def test_ctrl_c_ends_a_download_of_weights(photos, tmp_path):
    with serving() as server:
        server.behaviour.content = bytes(3_000_000)
        server.behaviour.stall_after = [1_000_000] * 5
        process = subprocess.Popen(
            [sys.executable, *command(photos, tmp_path / "run", "--weights", "imagenet")],
            stderr=subprocess.PIPE, text=True,
            env={**environment(), "HF_ENDPOINT": server.base, "no_proxy": "*"},
        )  # fmt: skip
        assert server.asked.wait(SOON)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SOON)
    assert process.returncode == 130, said
    assert "Traceback" not in said


def test_a_run_that_is_at_its_end_says_so_again(undisturbed, photos):
    out, first = undisturbed
    before = (out / "model.safetensors").stat().st_mtime_ns
    again = train(photos, out)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_other_options_or_photos_need_another_folder(undisturbed, photos, tmp_path):
    out, _ = undisturbed
    refused = train(photos, out, "--seed", "7")
    assert refused.returncode == 1
    assert "seed was 0, not 7" in refused.stderr
    more = shutil.copytree(photos, tmp_path / "more")
    refused = train(more, out)
    assert refused.returncode == 1
    assert "holds a run with other options or photos" in " ".join(refused.stderr.split())


def test_a_folder_with_something_else_is_left_alone(photos, tmp_path):
    (tmp_path / "holiday.txt").write_text("keep me")
    refused = train(photos, tmp_path)
    assert refused.returncode == 1
    assert "holds no run of efv2 train" in " ".join(refused.stderr.split())
    assert [each.name for each in tmp_path.iterdir()] == ["holiday.txt"]


def test_an_unreadable_photo_is_named_and_replaced(photos, tmp_path):
    some = shutil.copytree(photos, tmp_path / "photos")
    for name in ("3", "4", "5", "6"):
        (some / "red" / f"{name}.png").write_bytes(b"no photo")
    ended = train(some, tmp_path / "run", "--epochs", "1")
    assert ended.returncode == 0, ended.stderr
    said = " ".join(ended.stderr.split())
    named = [each for each in ("3", "4", "5", "6") if f"red/{each}.png cannot be read" in said]
    assert len(named) >= 2  # one may have been set apart


def test_weights_of_another_class_count_get_a_new_head(undisturbed, photos, tmp_path):
    out, _ = undisturbed
    some = shutil.copytree(photos, tmp_path / "photos")
    shutil.rmtree(some / "red")
    ended = train(
        some, tmp_path / "run", "--weights", str(out / "model.safetensors"), "--epochs", "1"
    )
    assert ended.returncode == 0, ended.stderr
    assert "with a new head for these classes" in " ".join(ended.stderr.split())


def test_two_processes_do_the_work_of_one(undisturbed, photos, tmp_path):
    expected, _ = undisturbed
    out = tmp_path / "run"
    # With --cpu, the launcher starts one process whatever number it is given.
    launcher = ["env", "ACCELERATE_USE_CPU=true", "accelerate", "launch", "--multi_gpu",
                "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0",
                "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
    ended = train(photos, out, launcher=launcher)
    assert ended.returncode == 0, ended.stderr
    assert "in 2 processes" in " ".join(ended.stderr.split())
    assert ended.stdout.count("top-1") == 1
    assert ended.stderr.count("epoch 1 of 2") == 1
    one, two = metrics(expected), metrics(out)
    assert [row["epoch"] for row in two] == [1, 2]
    for key in ("side", "learning_rate"):
        assert [row[key] for row in two] == [row[key] for row in one]
    # Batch normalisation sees each process's share, so that losses differ a little.
    assert two[0]["training_loss"] == pytest.approx(one[0]["training_loss"], rel=0.2)
