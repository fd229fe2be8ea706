"""What the process that ranks are forked from imports beforehand."""

import partition.runtime.processes
import partition.runtime.sharded
import partition.runtime.training  # noqa: F401
