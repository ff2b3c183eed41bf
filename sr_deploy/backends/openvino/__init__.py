"""The OpenVINO backend and its graph passes: `backend.create` is public."""
