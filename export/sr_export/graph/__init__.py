"""PyTorch modules to verified ONNX graphs, and the passes over those graphs."""
