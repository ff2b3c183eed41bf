"""`python -m sr_export` is `sr-export`."""

import sys

from sr_export.cli import main

sys.exit(main())
