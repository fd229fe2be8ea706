"""What importing the package costs: `partition plan` must answer within a second."""

import subprocess
import sys


def test_importing_the_package_imports_neither_numpy_nor_torch() -> None:
    """The integer arrays of `fast` and `auto` are imported by who uses them."""
    program = "import sys, partition.schedule; print(*sorted({'numpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
