"""Make efficientformerv2.npz: what timm's own EfficientFormerV2 answers with our seeded weights.

    python3.11 -m venv /tmp/golden
    /tmp/golden/bin/pip install torch==2.13.0 torchvision timm==1.0.31 onnx onnxruntime
    PYTHONPATH=. /tmp/golden/bin/python test/models/golden/make_efficientformerv2.py

(timm imports torchvision, but this network uses nothing of it.) For every size, the weights of
`seeded_state(size)` are put into timm's model, strictly, and it classifies two images. The file
keeps the images, each value of which stands for 16x16 pixels, and timm's logits. Printed are the
differences to our model in ONNX Runtime, in logits and, against torch's own export, in the graph.

The file in the repository was made with torch 2.13.0, timm 1.0.31, NumPy 2.4.6, onnx 1.23.2 and
ONNX Runtime 1.32.0, with an empty stand-in for torchvision. The logits differed by at most 2.1e-6
(s0), 3.8e-6 (s1), 6.0e-6 (s2) and 3.1e-5 (l); the graphs only in the gathered attention biases and
in attributes that torch writes out although they have no effect here.
"""

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import timm
import torch

from efv2_ros.models.efficientformerv2.builder import SIZES, build, seeded_state

PIXELS = 16  # of the square that one value stands for


def main() -> None:
    coarse = np.random.RandomState(0).uniform(-2, 2, (2, 3, 14, 14)).astype(np.float32)
    images = coarse.repeat(PIXELS, axis=2).repeat(PIXELS, axis=3)
    logits = {}
    for size in SIZES:
        state = seeded_state(size)
        reference = timm.create_model(f"efficientformerv2_{size}").eval()
        counters = {
            name: tensor
            for name, tensor in reference.state_dict().items()
            if name.endswith("num_batches_tracked")
        }
        weights = {name: torch.from_numpy(tensor) for name, tensor in state.tensors.items()}
        reference.load_state_dict({**weights, **counters}, strict=True)
        with torch.no_grad():
            logits[size] = reference(torch.from_numpy(images)).numpy()

        ours = build(state)
        session = onnxruntime.InferenceSession(
            ours.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        answers = np.concatenate([session.run(None, {"data": image[None]})[0] for image in images])
        print(
            f"{size}: {sum(p.numel() for p in reference.parameters())} parameters, logits' "
            f"standard deviation {logits[size].std():.2f}, "
            f"largest difference {np.abs(answers - logits[size]).max():.1e}"
        )
        compare_graphs(ours, export(reference))
    np.savez_compressed(Path(__file__).with_name("efficientformerv2.npz"), coarse=coarse, **logits)


def export(model: torch.nn.Module) -> onnx.ModelProto:
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 224, 224),),
        file,
        input_names=["data"],
        output_names=["output"],
        opset_version=11,
        dynamo=False,
    )
    return onnx.load_from_string(file.getvalue())


def compare_graphs(ours: onnx.ModelProto, theirs: onnx.ModelProto) -> None:
    ours_by_name = {node.name: node for node in ours.graph.node}
    theirs_by_name = {node.name: node for node in theirs.graph.node}
    for name in theirs_by_name.keys() - ours_by_name.keys():
        print("  only in the export:", name)
    for name in ours_by_name.keys() - theirs_by_name.keys():
        print("  only in ours:", name)
    for name in ours_by_name.keys() & theirs_by_name.keys():
        our, their = ours_by_name[name], theirs_by_name[name]
        attributes = {a.name: a for a in our.attribute}
        changed = [
            a.name for a in their.attribute if not same_attribute(attributes.get(a.name), a)
        ]
        if our.op_type != their.op_type or changed:
            print("  differs:", name, *changed)


def same_attribute(our: onnx.AttributeProto | None, their: onnx.AttributeProto) -> bool:
    if our is None or their.type != onnx.AttributeProto.TENSOR:
        return our == their
    return np.array_equal(onnx.numpy_helper.to_array(our.t), onnx.numpy_helper.to_array(their.t))


if __name__ == "__main__":
    main()
