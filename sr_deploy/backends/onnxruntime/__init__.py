"""The ONNX Runtime backend: `backend.create` is public."""
