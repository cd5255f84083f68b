"""EfficientFormerV2 as an ONNX model, written without torch."""
