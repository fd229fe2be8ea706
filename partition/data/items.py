"""Any `torch.utils.data.Dataset` by its import path: something with a length whose items are (features, target).

Nothing here knows torch: an item's parts become arrays the way NumPy makes arrays, which tensors, images, lists and
numbers all allow. Code that an experiment names is run by importing it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from partition.config import DataConfig
from partition.data.idx import Pair
from partition.data.import_path import import_path
from partition.data.outline import Items, Outline, check_dtype, check_outline
from partition.data.refusal import DataError, show


def outline_items(data: DataConfig) -> tuple[Pair, Pair | None]:
    """What the experiment's Dataset holds, by its length and its first item: made once for each set of arguments.

    Raises DataError: it cannot be imported or made, has no length, or its items are no pairs of numbers.
    """
    make = _import(data)
    train = _outline_pair(_make(make, data.arguments, "data.arguments"), "data.dataset", show(data.dataset))
    if data.test_arguments is None:
        return train, None
    held_out = _make(make, data.test_arguments, "data.test_arguments")
    return train, _outline_pair(held_out, "data.test_arguments", f"{show(data.dataset)} held out")


def _import(data: DataConfig) -> Callable[..., Any]:
    assert data.dataset is not None, "the schema asks for it"
    module_name, colon, attributes = data.dataset.partition(":")
    if not colon or not module_name or not attributes:
        raise DataError("data.dataset", f"{show(data.dataset)} is no import path; write it package.module:Name")
    try:
        found = import_path(data.dataset)
    except (Exception, SystemExit) as error:
        raise DataError("data.dataset", f"{show(data.dataset)} cannot be imported: {describe_error(error)}") from None
    if not callable(found):
        kind = type(found).__name__
        raise DataError("data.dataset", f"{show(data.dataset)} is of type {kind}; name a class or a function")
    return found  # type: ignore[no-any-return]


def _make(make: Callable[..., Any], arguments: tuple[tuple[str, Any], ...], key: str) -> Any:
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments}
    try:
        return make(**given)
    except (Exception, SystemExit) as error:
        shown = show(", ".join(f"{name}={value!r}" for name, value in given.items()))
        raise DataError(key, f"the dataset cannot be made with ({shown}): {describe_error(error)}") from None


def _outline_pair(dataset: Any, key: str, name: str) -> Pair:
    try:
        length = len(dataset)
    except Exception as error:
        raise DataError(key, f"{name} has no length ({describe_error(error)}); name a Dataset with __len__") from None
    if not length:
        raise DataError(key, f"{name} is empty; name a Dataset with items")

    def outline(part: int) -> Outline:
        value = take_part(dataset, 0, part, key, name)
        shown = f"{name}, {('the features', 'the targets')[part]}"
        shape = (length, *value.shape)
        place = Items(dataset=dataset, part=part)
        dtype = check_dtype(value.dtype.str, key, shown)
        return check_outline(Outline(key=key, name=shown, shape=shape, dtype=dtype, place=place))

    return Pair(outline(0), outline(1))


def take_part(dataset: Any, index: int, part: int, key: str, name: str) -> Any:
    """The features (part 0) or the targets (part 1) of an item, as an array.

    Raises DataError with the item and what its code raised, whatever that is.
    """
    import numpy as np

    try:
        item = dataset[index]
    except Exception as error:
        raise DataError(key, f"{name}: item {index} cannot be read: {describe_error(error)}") from None
    if not isinstance(item, tuple | list) or len(item) != 2:
        parts = f", of {len(item)} parts" if isinstance(item, tuple | list) else ""
        shown = f"{type(item).__name__}{parts}"
        raise DataError(key, f"{name}: item {index} is of type {shown}; make it a pair (features, target)")
    try:
        return np.asarray(item[part])
    except Exception as error:
        raise DataError(key, f"{name}: item {index} is no array: {describe_error(error)}") from None


def describe_error(error: BaseException) -> str:
    """An error of the user's own code on one line."""
    return show(f"{type(error).__name__}: {' '.join(str(error).split())}")
