"""Which model file, where it comes from and how it is checked; the network as ONNX."""
