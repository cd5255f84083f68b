"""Runs NV12 frames through a quantised model, bit for bit as the BPU does."""

from typing import Any

import numpy as np
from channel import Channel, serve
from quantized_input import fill


def run(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Run the frames of the request and write their logits."""
    first, last = request["first"], request["last"]
    channel.step("loading the quantised model", 0.0, 0.1)
    from horizon_nn.executor import ORTExecutor

    session = ORTExecutor(request["model"]).create_session()
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"the model has {len(inputs)} inputs and {len(outputs)} outputs, not 1")
    frames = np.load(request["frames"], mmap_mode="r")
    image = [1, frames.shape[1] * 2 // 3, frames.shape[2], 3]
    if list(inputs[0].shape) != image:
        raise ValueError(
            f"the frames make inputs of {image} and the model takes {inputs[0].shape}"
        )
    channel.step("running the quantised model", 0.1, 1.0)
    tensor = np.empty(image, np.int8)
    logits = []
    for index in range(first, last):
        fill(tensor, frames[index])
        output = session.forward({inputs[0].name: tensor})[outputs[0].name]
        logits.append(output.reshape(-1).astype(np.float32))
        channel.progress((index + 1 - first) / (last - first))
    np.save(request["logits"], np.stack(logits) if logits else np.empty((0, 0), np.float32))
    return {"frames": last - first}


if __name__ == "__main__":
    serve(run)
