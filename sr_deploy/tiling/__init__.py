"""Tiling: the planner, and the blender with its native twin."""
