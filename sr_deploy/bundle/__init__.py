"""Bundles: the manifest, the files, the TensorRT plans and the tuning record."""
