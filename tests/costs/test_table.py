"""Tables of layer costs: what is read, and every refusal with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from partition.costs import LayerCost, read_chain
from partition.costs.table import LARGEST_BYTES
from partition.errors import PartitionError

HEADER = "name,forward_s,backward_s,activation_bytes,parameter_bytes"
FULL = f"{HEADER},input_grad_s,weight_grad_s,saved_bytes,optimizer_bytes"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "chain.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(folder: Path, content: str | bytes) -> str:
    """The message without the path."""
    path = write(folder, content)
    with pytest.raises(PartitionError) as caught:
        read_chain(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_all_columns_are_read(tmp_path: Path) -> None:
    chain = read_chain(write(tmp_path, f"{FULL}\na,1.5e-3,2,4096,8,0.75,.25,1e3,16\nb,0,1,0,0,0,1,0,0\n"))
    assert chain.layers[0] == LayerCost(
        name="a",
        forward_s=1.5e-3,
        backward_s=2.0,
        activation_bytes=4096,
        parameter_bytes=8,
        input_grad_s=0.75,
        weight_grad_s=0.25,
        saved_bytes=1000,
        optimizer_bytes=16,
    )
    assert chain.has_memory
    assert chain.splits_backward


def test_optional_columns_may_be_left_out(tmp_path: Path) -> None:
    chain = read_chain(write(tmp_path, f"{HEADER}\na,1,2,3,4\n"))
    assert chain.layers[0].optimizer_bytes == 0
    assert not chain.has_memory
    assert not chain.splits_backward
    with pytest.raises(PartitionError, match=r"has no column saved_bytes, without which --memory cannot be kept to"):
        chain.require_memory("--memory")


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\r\n a , 1 ,2,3,4\r\nb,5,6,7,8\r\n",
        f"\ufeff{HEADER}\na,1,2,3,4\nb,5,6,7,8",
        f"\n{HEADER}  \n\na,1,2,3,4   \n   \nb,5,6,7,8\n\n\n",
        "parameter_bytes,name,backward_s,activation_bytes,forward_s\n4,a,2,3,1\n8,b,6,7,5\n",
        f'"name",{HEADER.removeprefix("name,")}\n"a",1,+2,3.0,4\n"b", "5",6,7,8e0\n',
    ],
)
def test_the_same_table_however_it_is_written(tmp_path: Path, content: str) -> None:
    layers = read_chain(write(tmp_path, content)).layers
    assert [(of.name, of.forward_s, of.backward_s, of.activation_bytes, of.parameter_bytes) for of in layers] == [
        ("a", 1.0, 2.0, 3, 4),
        ("b", 5.0, 6.0, 7, 8),
    ]


def test_a_quoted_name_may_hold_a_comma_and_a_quote(tmp_path: Path) -> None:
    chain = read_chain(write(tmp_path, f'{HEADER}\n"conv, ""3x3""",1,2,3,4\n'))
    assert chain.layers[0].name == 'conv, "3x3"'


def test_large_sizes_are_read_to_the_byte(tmp_path: Path) -> None:
    chain = read_chain(write(tmp_path, f"{HEADER}\na,1,2,{2**53 + 1},{LARGEST_BYTES}\n"))
    assert chain.layers[0].activation_bytes == 2**53 + 1
    assert chain.layers[0].parameter_bytes == LARGEST_BYTES


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ": is empty; its first line is the header name,forward_s"),
        ("\n \n", ": is empty"),
        (f"{HEADER}\n", ": has a header and no layers; add one line for each layer"),
        ("a,1,2,3,4\n", ":1: the first line is no header (it begins with 'a'); write name,forward_s"),
        (
            f"{HEADER.replace(',', ';')}\n",
            ":1: the header 'name;forward_s;backward_s;activation_bytes;parameter_bytes'",
        ),
        (f"{HEADER},savedbytes\n", ":1: unknown column 'savedbytes'; did you mean saved_bytes?"),
        (f"{HEADER},flop\n", ":1: unknown column 'flop'; remove it; known are name"),
        (f"{HEADER},\n", ":1: unknown column ''"),
        (f"{HEADER},name\n", ":1: column name is there 2 times; keep one of them"),
        ("name,forward_s,activation_bytes\n", ":1: column backward_s is missing; the header is name,forward_s"),
        (
            f"{HEADER},input_grad_s\n",
            ":1: column input_grad_s is alone; give input_grad_s and weight_grad_s, or neither",
        ),
        (
            f"{FULL}\na,1,2,3,4,1,1,5,6\nb,1,2,3,4,2,1.1,5,6\n",
            ":3: input_grad_s + weight_grad_s is 3.1 s, backward_s 2; they may differ by 50% of backward_s; measure",
        ),
        (f"{FULL}\na,1,2,3,4,0.4,.5,5,6\n", ":2: input_grad_s + weight_grad_s is 0.9 s, backward_s 2; they may differ"),
        (f"{HEADER}\na,1,2,3\n", ":2: has 4 cells, the header has 5; give one for each column"),
        (f"{HEADER}\na,b,1,2,3,4\n", ":2: has 6 cells, the header has 5"),
        (f"{HEADER}\na,1,2,3,4\n\n,1,2,3,4\n", ":4: name: '' is no name"),
        (f"{HEADER}\na,,2,3,4\n", ":2: forward_s: is empty; write a number such as 1.5e-3 (seconds)"),
        (f"{HEADER}\na,1,-2,3,4\n", ":2: backward_s: -2 is negative; the least is 0"),
        (f"{HEADER}\na,nan,2,3,4\n", ":2: forward_s: 'nan' is not a finite number"),
        (f"{HEADER}\na,1,inf,3,4\n", ":2: backward_s: 'inf' is not a finite number"),
        (f"{HEADER}\na,1_0,2,3,4\n", ":2: forward_s: '1_0' is not a finite number"),
        (f"{HEADER}\na,1,2,4 KiB,4\n", ":2: activation_bytes: '4 KiB' is not a finite number; write one such as 4096"),
        (f"{HEADER}\na,1,2,{'0' * 5000}1,4\n", "is not a finite number"),
        (f"{HEADER}\na,1,2,3.5,4\n", ":2: activation_bytes: 3.5 is not a whole number of bytes; write 4"),
        (f"{HEADER}\na,1,2,3,-1\n", ":2: parameter_bytes: -1 is negative; the least is 0"),
        (f"{HEADER}\na,1,2,3,{LARGEST_BYTES + 1}\n", f"the most is {LARGEST_BYTES} (1 EiB)"),
        (f"{HEADER}\na,1,2,1e400,1\n", ":2: activation_bytes: 1e400 bytes are too many"),
        (f"{HEADER}\na,1e10,2,3,4\n", ":2: forward_s: 1e10 seconds are too many; the most is 1e+09"),
        (f"{HEADER}\na,0,0,3,4\n", ": forward_s and backward_s of all layers come to 0 s"),
        (f"{HEADER}\na,1,2,3,{2**60}\nb,1,2,3,1\n", f": parameter_bytes of all layers come to {2**60 + 1} bytes"),
        (f'{HEADER}\n"a,1,2,3,4\nb,1,2,3,4\n', ":2: a quote is opened and not closed on its line; close it"),
        (f"{HEADER}\n{'a' * 300},1,2,3,4\n", ":2: name: 'aaa"),
        (f"{HEADER}\n{'a' * 200_000},1,2,3,4\n", ":2: field larger than field limit"),
        (f"{HEADER}\na,1,2,3,4\n".encode("utf-16"), ": is text in UTF-16; save it as UTF-8"),
        (b"\x89PNG\r\n\x00\x00", ": is a binary file; name a CSV file of layer costs"),
        (f"{HEADER}\na".encode() + b"\xff,1,2,3,4\n", ":2: is not text in UTF-8; save it as UTF-8"),
    ],
)
def test_refusals(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert expected in refusal(tmp_path, content)


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, expected in (
        (tmp_path / "absent.csv", "there is no such file; check the path"),
        (tmp_path, "is a folder; name a CSV file"),
        (Path("/dev/null"), "is not a regular file"),
        (tmp_path / "a\0b", "the path holds a null character"),
    ):
        with pytest.raises(PartitionError, match=expected):
            read_chain(path)


def test_unprintable_values_are_shown_on_one_line(tmp_path: Path) -> None:
    assert "'\\x1b[2J' is not a finite number" in refusal(tmp_path, f"{HEADER}\na,\x1b[2J,2,3,4\n")


def test_halves_may_differ_from_the_backward_by_half_of_it(tmp_path: Path) -> None:
    """Each is measured in steps of its own; the tables of real measurements differ by a tenth or two."""
    chain = read_chain(write(tmp_path, f"{FULL}\na,1,2,3,4,2,1,5,6\nb,1,2,3,4,0,1,5,6\n"))
    assert [(of.input_grad_s, of.weight_grad_s) for of in chain.layers] == [(2.0, 1.0), (0.0, 1.0)]
