"""Bundles on disk: manifest, files, TensorRT plans and tuning records."""
