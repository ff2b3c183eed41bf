"""The runtime of the engine: session, frames and streams, within the memory budget.

Public classes are exported by `sr_deploy`; everything else here may change.
"""
