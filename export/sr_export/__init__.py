"""Export training checkpoints to verified bundles: `sr-export`, and `pipeline.build` in Python."""
