"""Model files: descriptions, download, checks, and EfficientFormerV2 built as ONNX."""
