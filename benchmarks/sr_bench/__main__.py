"""`python -m sr_bench` is `sr-bench`."""

import sys

from sr_bench.cli import main

sys.exit(main())
