"""Changes of parameters while the node runs: refused with a reason, applied, or undone whole."""

import math

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from talker import SOON, as_messages
from tiny_models import projection

pytestmark = pytest.mark.e2e

FILES = "efficientformerv2_{}_deploy.onnx"
CATALOG = """
models:
  mine:
    input: {{height: 224, width: 224}}
    classes: {classes}
    nv12_range: full
    labels: {labels}
    files:
      onnx: mine.onnx
"""


@pytest.fixture
def models(tmp_path):
    """A model folder with a small network under the catalog's name of s0."""
    folder = tmp_path / "models"
    folder.mkdir()
    projection(folder / FILES.format("s0"))
    return folder


@pytest.fixture
def started(start, models):
    """Start a classifier with these models: `started(parameters)`."""

    def started(parameters=None, **options):
        return start(parameters or {}, environment={"EFV2_MODEL_DIR": str(models)}, **options)

    return started


def set_together(talker, **parameters):
    """Set parameters in one atomic request; its result."""
    return talker.call(
        SetParametersAtomically, "set_parameters_atomically", parameters=as_messages(parameters)
    ).result


def expect_refusal(talker, words, **parameters):
    """A sentence, and a node that goes on with its parameters as they were."""
    before = {name: talker.get(name) for name in parameters}
    result = set_together(talker, **parameters)
    assert not result.successful
    assert words in result.reason
    assert "Traceback" not in result.reason
    assert {name: talker.get(name) for name in parameters} == before
    assert talker.process.running


def my_catalog(models, seed=9):
    """A catalog with the model `mine`, and the model."""
    projection(models / "mine.onnx", seed=seed)
    labels = models / "mine.txt"
    labels.write_text("\n".join(f"mine {n}" for n in range(1000)))
    file = models / "mine.yaml"
    file.write_text(CATALOG.format(classes=1000, labels=labels))
    return file


def test_a_home_of_nobody_is_a_reason_to_refuse(started):
    process, talker = started()
    expect_refusal(talker, "home", model_path="~nouser/m.onnx")
    expect_refusal(talker, "nouser", catalog_file="~nouser/c.yaml")
    expect_refusal(talker, "nouser", labels_file="~nouser/l.txt")
    assert talker.state() == "active"
    process.stop()
    assert process.returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        CATALOG.format(classes=1000, labels="~nouser/x"),
        CATALOG.format(classes="9" * 400, labels="null"),
        CATALOG.format(classes="9" * 5000, labels="null"),
        "[" * 5000,
        "{a: " * 5000,
        CATALOG.format(classes=1000, labels='"\\uD800"'),
        "models: {mine: 3}",
        "\x00",
        "a: &a [*a]",
    ],
)
def test_no_catalog_ends_the_node(started, tmp_path, text):
    _, talker = started()
    file = tmp_path / "catalog.yaml"
    file.write_text(text)
    expect_refusal(talker, "", model_size="mine", catalog_file=str(file))
    assert talker.state() == "active"


def test_a_failed_change_is_undone_whole(started, models, tmp_path):
    process, talker = started()
    catalog = my_catalog(models)
    assert set_together(talker, model_size="mine", catalog_file=str(catalog)).successful
    assert talker.spin_until(lambda: talker.vision_info[-1].method == "mine", SOON)
    announced = len(talker.vision_info)
    # It loads, but gives other classes than the catalog says.
    projection(models / FILES.format("s1"), classes=7)
    result = set_together(talker, model_size="s1", catalog_file="", top_k=3, stale_after=7.0)
    assert result.successful, result.reason
    assert talker.spin_until(lambda: talker.get("model_size") == "mine", SOON)
    talker.spin_for(1.0)  # time to do what must not be done
    assert talker.get("catalog_file") == str(catalog)
    assert talker.get("top_k") == 5
    assert talker.get("stale_after") == 7.0  # it does not take part in the failure
    model, _ = talker.fresh_model()
    assert model.level == DiagnosticStatus.WARN
    assert model.message.startswith("mine stays in use: ")
    assert len(talker.vision_info) == announced
    log = process.stop()
    assert log.count("stays in use") == 1
    assert log.count("running mine from") == 1
    assert log.count("running efficientformerv2_s0") == 1
    assert "refused" not in log


def test_what_is_changed_meanwhile_beside_the_model_stays(started, models):
    _, talker = started()
    projection(models / FILES.format("s1"), classes=7)
    for name, value in (("model_size", "s1"), ("stale_after", 8.0), ("diagnostics_period", 0.1)):
        (result,) = talker.set(**{name: value})
        assert result.successful
    assert talker.spin_until(lambda: talker.get("model_size") == "s0", SOON)
    assert talker.get("stale_after") == 8.0
    assert talker.get("diagnostics_period") == pytest.approx(0.1)


def test_two_wrong_values_at_start_are_corrected_one_by_one(started):
    _, talker = started({"fit": "squeeze", "mean": "1,2", "roi": "a"}, wait=False)
    assert talker.spin_until(talker.model_failed, SOON)
    (result,) = talker.set(fit="zoom")
    assert not result.successful
    for name, value in (("fit", "crop"), ("roi", ""), ("mean", "")):
        (result,) = talker.set(**{name: value})
        assert result.successful, result.reason
    assert talker.transition("configure")
    assert talker.transition("activate")


@pytest.mark.parametrize("state", ["active", "unconfigured"])
def test_numbers_that_are_none_are_refused(started, state):
    _, talker = started({"autostart": state == "active"}, wait=False)
    assert talker.spin_until(lambda: talker.state() == state, SOON)
    expect_refusal(talker, "not finite", mean="nan,0,0")
    expect_refusal(talker, "not finite", mean="0,inf,0")
    expect_refusal(talker, "not finite", scale="1,1,-inf")
    expect_refusal(talker, "zero", scale="0,0,0")
    for name in ("score_threshold", "infer_timeout", "stale_after", "diagnostics_period"):
        expect_refusal(talker, name, **{name: math.nan})
        expect_refusal(talker, name, **{name: math.inf})


@pytest.mark.parametrize("allowed", ["allow_download", "allow_untrained"])
def test_what_no_download_cures_is_refused_at_once(started, models, tmp_path, allowed):
    process, talker = started({allowed: True})
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"<!doctype html>")
    for words, change in (
        ("s9", {"model_size": "s9"}),
        ("/nowhere/m.onnx", {"model_path": "/nowhere/m.onnx"}),
        ("/nowhere/l.txt", {"labels_file": "/nowhere/l.txt"}),
        ("/nowhere/c.yaml", {"catalog_file": "/nowhere/c.yaml"}),
        ("few.txt", {"labels_file": str(few)}),
        ("broken.onnx", {"model_path": str(broken)}),
        ("libdnn", {"runtime": "libdnn"}),
        ("hbm", {"runtime": "hbm"}),
    ):
        expect_refusal(talker, words, **change)
    assert talker.get(allowed) is True
    assert "stays in use" not in process.stop()


def test_what_a_download_may_cure_is_not_refused(started, models):
    _, talker = started({"allow_untrained": True})
    (result,) = talker.set(model_size="s1")
    assert result.successful, result.reason
    assert talker.spin_until(lambda: "untrained" in talker.vision_info[-1].method, SOON)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("autostart", False, "read-only"),
        ("keep_memory", False, "read-only"),
        ("no_such_parameter", 1, "there is no parameter no_such_parameter"),
        ("top_k", "many", "top_k is of type int, 'many' is not"),
        ("top_k", 5.0, "top_k is of type int, '5.0' is not"),
        ("antialias", "perhaps", "antialias is of type bool, 'perhaps' is not"),
        ("stale_after", "5", "stale_after is of type float, '5' is not"),
        ("model_size", 0, "model_size is of type str, '0' is not"),
        ("model_size", [1, 2], "model_size is of type str"),
        ("top_k", -1, "out of range"),
        ("slots", 2, "slots changes while unconfigured"),
        ("use_sim_time", 3, "Wrong parameter type"),
    ],
)
def test_every_refusal_is_a_sentence(started, name, value, words):
    _, talker = started()
    for result in (*talker.set(**{name: value}), set_together(talker, **{name: value})):
        assert not result.successful
        assert words in result.reason
    assert talker.process.running


def test_an_atomic_request_is_done_whole_or_not_at_all(started):
    _, talker = started()
    assert not set_together(talker, fit="stretch", top_k=0).successful
    assert not set_together(talker, fit="stretch", roi="1,2").successful
    assert not set_together(talker, fit="stretch", autostart=False).successful
    assert talker.get("fit") == "crop"
    assert set_together(talker, fit="stretch", top_k=2).successful
    assert (talker.get("fit"), talker.get("top_k")) == ("stretch", 2)


def test_a_whole_number_may_stand_for_a_float(started):
    _, talker = started()
    for result in (*talker.set(stale_after=5), set_together(talker, score_threshold=1, top_k=1)):
        assert result.successful, result.reason
    values = (talker.get("stale_after"), talker.get("score_threshold"))
    assert values == (5.0, 1.0)
    assert all(type(value) is float for value in values)


def test_a_parameter_cannot_be_deleted(started):
    _, talker = started()
    unset = ParameterMessage(
        name="top_k", value=ParameterValue(type=ParameterType.PARAMETER_NOT_SET)
    )
    result = talker.call(
        SetParametersAtomically, "set_parameters_atomically", parameters=[unset]
    ).result
    assert not result.successful
    assert talker.get("top_k") == 5
