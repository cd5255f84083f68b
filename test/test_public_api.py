"""The Python API: what `import efv2_ros` offers, and that it costs nothing until it is used."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import projection

import efv2_ros

ROOT = Path(__file__).parents[1]


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_public_name_can_be_imported():
    for name in efv2_ros.__all__:
        assert getattr(efv2_ros, name) is not None
    assert set(efv2_ros.__all__) <= set(dir(efv2_ros))
    assert efv2_ros.__all__ == sorted(
        efv2_ros.__all__, key=lambda name: (name.lower() == name, name)
    )


def test_the_type_checker_sees_the_same_names():
    tree = ast.parse(Path(efv2_ros.__file__).read_text())
    (block,) = (each for each in tree.body if isinstance(each, ast.If))
    typed = {
        name.name: each.module.removeprefix("efv2_ros.")
        for each in block.body
        for name in each.names
    }
    assert typed == efv2_ros._MODULES
    assert {*typed, "__version__"} == set(efv2_ros.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Classifer'"):
        efv2_ros.Classifer  # noqa: B018


def test_importing_the_package_loads_nothing():
    loaded = run("import sys; before = set(sys.modules); import efv2_ros; "
                 "print(*(set(sys.modules) - before))")  # fmt: skip
    assert {each.partition(".")[0] for each in loaded} - sys.stdlib_module_names == {"efv2_ros"}


def test_the_api_needs_no_ros_and_no_command_line():
    names = ", ".join(each for each in efv2_ros.__all__ if each != "__version__")
    loaded = run(f"import sys; from efv2_ros import {names}; print(*sys.modules)")
    assert not {"rclpy", "click", "rich", "onnx", "rosbags"} & set(loaded)


def test_documents_describe_every_public_name():
    text = (ROOT / "docs" / "python.md").read_text()
    for name in efv2_ros.__all__:
        assert re.search(rf"`(efv2_ros\.)?{name}\b", text), name


def test_a_frame_of_an_array(tmp_path):
    model = projection(tmp_path / "model.onnx")
    request = efv2_ros.ModelRequest(model_path=str(model), mean=(0, 0, 0), scale=(1, 1, 1))
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    with efv2_ros.load_model(request) as loaded:
        classifier = efv2_ros.Classifier(loaded, efv2_ros.ViewOptions(top_k=3))
        result = classifier.classify(efv2_ros.Frame.from_bgr(picture))
        # A view whose rows and columns are turned round is not contiguous.
        turned = classifier.classify(efv2_ros.Frame.from_bgr(picture[::-1, ::-1]))
        copied = classifier.classify(efv2_ros.Frame.from_bgr(picture[::-1, ::-1].copy()))
    assert [each.score for each in result.classes] == list(result.prediction.scores)
    assert [each.label for each in result.classes] == [
        loaded.labels[each] for each in result.prediction.class_ids
    ]
    assert turned.prediction == copied.prediction != result.prediction


def test_a_contiguous_picture_is_not_copied():
    picture = np.zeros((4, 6, 3), np.uint8)
    assert np.shares_memory(efv2_ros.Frame.from_bgr(picture).data, picture)


@pytest.mark.parametrize(
    "picture",
    [
        None,
        np.zeros((4, 6), np.uint8),
        np.zeros((4, 6, 4), np.uint8),
        np.zeros((4, 6, 3)),
        "photo",
    ],
)
def test_what_is_no_picture_is_said(picture):
    with pytest.raises(efv2_ros.Efv2Error, match="uint8 array"):
        efv2_ros.Frame.from_bgr(picture)
