"""Builds TensorRT plans, on the machine where they will run: needs neither torch nor onnx."""
