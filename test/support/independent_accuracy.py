"""Top-5 of each image by NumPy and ONNX Runtime alone: `... FOLDER MODEL`, 224x224 images.

The image as NV12 in full range BT.601 and back, as a model on the BPU sees it.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
for path in sorted(each for each in Path(sys.argv[1]).rglob("*") if each.is_file()):
    b, g, r = cv2.imread(str(path)).astype(np.float64).transpose(2, 0, 1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    u, v = (
        np.rint(chroma.reshape(112, 2, 112, 2).mean((1, 3)) + 128).clip(0, 255) - 128
        for chroma in ((b - y) / 1.772, (r - y) / 1.402)
    )
    u, v = (plane.repeat(2, 0).repeat(2, 1) for plane in (u, v))
    y = np.rint(y)
    rgb = np.stack([y + 1.4017 * v, y - 0.3437 * u - 0.7142 * v, y + 1.7722 * u], -1)
    data = (rgb - [123.675, 116.28, 103.53]) * [0.01712475, 0.017507, 0.01742919]
    data = data.transpose(2, 0, 1)[None].astype(np.float32)
    logits = session.run(None, {session.get_inputs()[0].name: data})[0].ravel()
    best = np.argsort(-logits)[:6]
    margin = float(-np.diff(logits[best]).max())
    found = {"file": str(path), "top5": best[:5].tolist(), "margin": margin}
    print(json.dumps(found))
