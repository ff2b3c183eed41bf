"""The OpenVINO backend and its graph passes."""
