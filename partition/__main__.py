"""`python -m partition`."""

import sys

from partition.cli import main

sys.exit(main())
