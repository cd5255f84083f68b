"""Runs NV12 frames through a quantised model, bit for bit as the BPU does."""

from typing import Any

import numpy as np
from channel import Channel, serve
from numpy.typing import NDArray


def model_input(nv12: NDArray[np.uint8]) -> NDArray[np.int8]:
    """What the quantised model takes.

    Args:
        nv12: uint8 (H * 3 / 2, W).

    Returns:
        int8 (1, H, W, 3): Y, U and V minus 128; each pixel has the chroma of its 2x2 square.
    """
    height = nv12.shape[0] * 2 // 3
    image = np.empty((1, height, nv12.shape[1], 3), np.uint8)
    image[0, :, :, 0] = nv12[:height]
    chroma = nv12[height:].reshape(height // 2, nv12.shape[1] // 2, 2)
    for row in (0, 1):
        for column in (0, 1):
            image[0, row::2, column::2, 1:] = chroma
    return (image ^ 0x80).view(np.int8)


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
    logits = []
    for index in range(first, last):
        output = session.forward({inputs[0].name: model_input(frames[index])})[outputs[0].name]
        logits.append(output.reshape(-1).astype(np.float32))
        channel.progress((index + 1 - first) / (last - first))
    np.save(request["logits"], np.stack(logits) if logits else np.empty((0, 0), np.float32))
    return {"frames": last - first}


if __name__ == "__main__":
    serve(run)
