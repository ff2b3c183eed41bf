"""Imported by the fork server only: it ends at once when the program ends, and its children then.

By itself it sees a closed pipe, and then takes seconds to unload what it has imported.
"""

from sr_deploy._worker import die_with_parent

die_with_parent()
