"""Real checkpoints of public origins, exported and compared with the origin's own code."""
