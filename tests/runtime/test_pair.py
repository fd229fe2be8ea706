"""Two processes exchange a message, or say why not."""

import pytest

from partition.errors import RunError
from partition.runtime.pair import try_pair


@pytest.mark.slow
def test_gloo_works_here() -> None:
    assert 0 < try_pair("gloo") < 10


@pytest.mark.slow
def test_a_backend_that_is_none_is_told_in_one_line() -> None:
    with pytest.raises(RunError, match=r"^[^\n]*carrier[^\n]*$"):
        try_pair("carrier")


def test_patience_has_an_end() -> None:
    with pytest.raises(RunError, match=r"no message within 0\.05 s"):
        try_pair("gloo", patience_s=0.05)
