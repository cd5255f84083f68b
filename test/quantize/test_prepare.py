"""The float model: its size, the names of its nodes, its batch."""

import onnx
import pytest
from small_cnn import small_cnn

from efv2_ros.classify.options import ModelRequest
from efv2_ros.quantize.prepare import find_float_model, open_float_model


def opened(path, **options):
    return open_float_model(find_float_model(str(path), ModelRequest(**options)))


@pytest.mark.parametrize(
    ("name", "size"),
    [("efficientformerv2_s1_deploy.onnx", "s1"), ("EfficientFormerv2_s2_224x224.onnx", "s2"),
     ("efficientformerv2_s10.onnx", ""), ("cnn.onnx", "")],
)  # fmt: skip
def test_the_size_is_known_by_the_files_name(tmp_path, name, size):
    with opened(small_cnn(tmp_path / name)) as source:
        assert source.size == size
        assert source.name == (size or name.removesuffix(".onnx"))


def test_a_file_says_itself_what_it_is(tmp_path):
    path = small_cnn(tmp_path / "mine.onnx")
    proto = onnx.load(str(path))
    onnx.helper.set_model_props(proto, {"model": "efficientformerv2_s2"})
    onnx.save(proto, str(path))
    with opened(path) as source:
        assert source.size == "s2"
        assert source.name == "mine"


def test_nodes_get_names_and_the_batch_is_one(tmp_path):
    with opened(small_cnn(tmp_path / "cnn.onnx", batch="batch")) as source:
        names = [node.name for node in source.proto.graph.node]
        assert len(set(names)) == len(names)
        assert "Flatten_0" in names
        (value,) = source.proto.graph.input
        assert [size.dim_value for size in value.type.tensor_type.shape.dim] == [1, 3, 64, 96]


def test_a_size_of_the_catalog(tmp_path):
    with opened("s0", allow_untrained=True) as source:
        assert (source.size, source.name) == ("s0", "s0")
        assert source.notes == ()
