"""Videos in and out: every frame in order, on time, with its sound and its colours.

Needs PyAV (the extra `video`), which is imported when a video comes.
"""
