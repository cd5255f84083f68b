"""Trials in workers: the same results as in one process, whatever happens to the workers."""

import json

import pytest

pytest.importorskip("onnx")
from analytic_bench import NOISE, AnalyticBench
from analytic_spec import AnalyticSpec
from click.testing import CliRunner
from small_cnn import small_cnn
from small_network import small_network

from efv2_ros.cli.main import main
from efv2_ros.quantize.recipe import Calibration, Recipe
from efv2_ros.quantize.search import Budget, search
from efv2_ros.quantize.sensitivity import measure_sensitivity
from efv2_ros.quantize.space import Space
from efv2_ros.quantize.tasks import TrialWorkers
from efv2_ros.quantize.trials import Trials
from efv2_ros.toolchain.environment import Stopped, ToolchainUnavailableError
from efv2_ros.workers.cluster import DaskWorkers
from efv2_ros.workers.errors import WorkersError
from efv2_ros.workers.processes import LocalWorkers

PLAIN = Recipe("plain", calibration=Calibration(percentile=0.9999))
ALL_INT16 = Recipe("wide", calibration=Calibration(percentile=0.999), all_int16=True)


@pytest.fixture
def space():
    return Space(small_network())


@pytest.fixture
def opened(tmp_path):
    """Folder with a file for each bench that a worker opens."""
    folder = tmp_path / "opened"
    folder.mkdir()
    return folder


def found_by(trials, space, **options):
    return search(trials, space, (PLAIN, ALL_INT16), Budget(40), **options)


@pytest.fixture
def expected(space, tmp_path):
    """What a search in this process finds; the files of its trials are in `here`."""
    return found_by(Trials(AnalyticBench(space), tmp_path / "here"), space)


def kept(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def test_the_front_is_that_of_one_process(space, opened, expected, tmp_path):
    with LocalWorkers(2) as workers:
        elsewhere = TrialWorkers(workers, AnalyticSpec(str(opened)))
        bench = AnalyticBench(space)
        shown = []
        trials = Trials(
            bench, tmp_path / "there", elsewhere=elsewhere,
            on_progress=lambda text, share: shown.append((text, share)),
        )  # fmt: skip
        assert found_by(trials, space) == expected
        assert bench.asked == {"score": [], "cost": []}
        assert trials.tried == trials.finished == len(shown)
        assert {share for _, share in shown} == {1.0}
        again = Trials(bench, tmp_path / "there", elsewhere=elsewhere)
        assert found_by(again, space) == expected
        assert again.tried == 0
    assert kept(tmp_path / "there") == kept(tmp_path / "here")
    assert len({each.name.partition("_")[0] for each in opened.iterdir()}) == 2
    assert len(list(opened.iterdir())) == 2  # each process has opened its bench once


def test_the_front_is_that_of_one_process_on_a_cluster(space, opened, expected, tmp_path):
    from dask_cluster import dask_cluster

    with dask_cluster(tmp_path) as cluster, DaskWorkers(cluster.address) as workers:
        elsewhere = TrialWorkers(workers, AnalyticSpec(str(opened)))
        trials = Trials(AnalyticBench(space), tmp_path / "there", elsewhere=elsewhere)

        def on_point(point, tried):
            if tried == 20:
                cluster.workers[0].kill()

        assert found_by(trials, space, on_point=on_point) == expected
    assert kept(tmp_path / "there") == kept(tmp_path / "here")


def test_a_trial_that_kills_every_process_has_failed(space, opened, tmp_path):
    with LocalWorkers(2) as workers:
        elsewhere = TrialWorkers(workers, AnalyticSpec(str(opened), fatal="head"))
        trials = Trials(AnalyticBench(space), tmp_path / "there", elsewhere=elsewhere)
        found = measure_sensitivity(trials, PLAIN, space.parts(PLAIN), costs="none")
    assert [row.problem for row in found.rows] == [
        "its process died, 3 times" if group == "head" else "" for group in NOISE
    ]
    assert all(row.gained for row in found.rows[:-1])
    assert len(kept(tmp_path / "there")) == len(NOISE)


def test_the_search_ends_where_a_worker_has_no_toolchain(space, opened, tmp_path):
    with LocalWorkers(1) as workers:
        elsewhere = TrialWorkers(workers, AnalyticSpec(str(opened), has_toolchain=False))
        trials = Trials(AnalyticBench(space), tmp_path / "there", elsewhere=elsewhere)
        with pytest.raises(ToolchainUnavailableError, match="the toolchain is not installed"):
            found_by(trials, space)
    assert kept(tmp_path / "there") == {}


def test_a_worker_with_another_model_ends_the_search(space, opened, tmp_path):
    with LocalWorkers(1) as workers:
        elsewhere = TrialWorkers(workers, AnalyticSpec(str(opened), salt="another model"))
        trials = Trials(AnalyticBench(space), tmp_path / "there", elsewhere=elsewhere)
        with pytest.raises(WorkersError, match="has another model, other images"):
            found_by(trials, space)


def test_a_search_can_be_stopped(space, opened, expected, tmp_path):
    with LocalWorkers(2) as workers:
        elsewhere = TrialWorkers(workers, AnalyticSpec(str(opened)))
        trials = Trials(
            AnalyticBench(space), tmp_path / "there", elsewhere=elsewhere,
            should_stop=lambda: trials.tried >= 7,
        )  # fmt: skip
        with pytest.raises(Stopped):
            found_by(trials, space)
    rest = Trials(AnalyticBench(space), tmp_path / "there")
    assert found_by(rest, space) == expected
    assert 0 < rest.tried < len(kept(tmp_path / "here"))


def test_wrong_words(quantize, compiler):
    made = quantize("--search", "--workers", "2", "--cluster", "tcp://127.0.0.1:1")
    assert made.exit_code == 2
    assert "--workers are of this machine" in made.stderr
    made = quantize("--workers", "2")
    assert made.exit_code == 2
    assert "--workers and --cluster are for --explain and --search" in made.stderr
    made = quantize("--search", "--cluster", "tcp://127.0.0.1:1")
    assert made.exit_code == 1
    assert "no Dask scheduler at tcp://127.0.0.1:1" in made.stderr
    assert not compiler.requests


@pytest.mark.toolchain
def test_with_the_toolchain(toolchain, photos, tmp_path, monkeypatch):
    small_cnn(tmp_path / "cnn.onnx")
    monkeypatch.chdir(tmp_path)
    words = ["quantize", "cnn.onnx", "--calib", "photos", "--recipe", "plain", "--opt", "O0",
             "--images", "20", "--eval-images", "12", "--explain"]  # fmt: skip
    documents = []
    for name, more in (("here", ()), ("there", ("--workers", "2"))):
        made = CliRunner().invoke(main, [*words, "--out", name, "--state", f"{name}_state", *more])
        assert made.exit_code == 0, made.output
        documents.append(json.loads((tmp_path / name / "sensitivity.json").read_text()))
    assert documents[0] == documents[1]
    assert kept(tmp_path / "here_state") == kept(tmp_path / "there_state")
