"""Cutting frames into tiles and putting the results together."""
