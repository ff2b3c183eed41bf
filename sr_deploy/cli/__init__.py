"""The commands: sr-upscale, sr-generate and sr-doctor."""
