"""EfficientFormerV2 built as an ONNX model, without torch."""
