"""From a float ONNX model to a compiled one: calibrate, check, rewrite, compile, compare."""
