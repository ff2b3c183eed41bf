"""TensorRT plans, built on the machine that runs them; torch and onnx are not needed.

`command` is the command line, and `build.build_plan` the entry point for the runtime.
"""
