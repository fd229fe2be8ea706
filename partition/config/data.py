"""Where the examples of an experiment come from: bundled, made from the seed, or the user's own files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from partition.config.section import CONFLICT, Conflict, Section

Source = Literal["mnist5k", "digits", "diabetes", "synthetic", "idx", "npz", "npy", "csv", "torch"]
Standardise = Literal["together", "each", "none"]

LARGEST_EXAMPLE_COUNT = 2**30
DEFAULT_TEST_FRACTION = 0.2

_PATHS = ("path", "targets_path", "test_path", "test_targets_path")
_OF_IMAGES = ("test_fraction", "standardise")
_OF_VALUES = (*_OF_IMAGES, "standardise_targets")

KEYS_OF_SOURCE: dict[str, tuple[str, ...]] = {
    "mnist5k": _OF_IMAGES,
    "digits": _OF_IMAGES,
    "diabetes": _OF_VALUES,
    "synthetic": ("num_examples", "test_fraction"),
    "idx": (*_PATHS, *_OF_IMAGES),
    "npy": (*_PATHS, *_OF_VALUES),
    "npz": (
        *("path", "test_path", "features_key", "targets_key", "test_features_key", "test_targets_key"),
        *_OF_VALUES,
    ),
    "csv": ("path", "test_path", "target", "header", "delimiter", *_OF_VALUES),
    "torch": ("dataset", "arguments", "test_arguments", *_OF_VALUES),
}
"""The keys, besides `source`, that each source has."""

PATH_KEYS = _PATHS
"""Keys that hold a path: relative to the folder of the file they stand in, or of the command that overrides them."""

_REQUIRED = {
    "idx": ("path",),
    "npy": ("path", "targets_path"),
    "npz": ("path",),
    "csv": ("path",),
    "torch": ("dataset",),
}

_EXAMPLES = {
    "path": "the folder or file that holds the examples",
    "targets_path": "the .npy file that holds the targets",
    "dataset": "for example `dataset: package.module:Name`",
}

_NAMES_TESTS = ("test_path", "test_features_key", "test_arguments")
"""Any of these says where the examples held out are, so that none are taken from the others."""

_COME_IN_PAIRS = {
    "test_targets_path": "test_path",
    "test_targets_key": "test_features_key",
    "test_features_key": "test_targets_key",
}


def _list_names(value: object) -> object:
    """A column or several, by name or by index, as text: a header may name a column 3."""
    values = value if isinstance(value, tuple | list) else (value,)
    return tuple(str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in values)


def _pair_up(value: object) -> object:
    """Keyword arguments as pairs, which can be compared and hashed."""
    if value is None:
        return None
    wrong = _wrong_argument(value)
    if wrong:
        raise PydanticCustomError(CONFLICT, "{message}", {"message": wrong})
    return tuple(value.items()) if isinstance(value, Mapping) else value


def _wrong_argument(value: object) -> str:
    """What keeps a value from being keyword arguments; a mapping, or its pairs."""
    pairs = value.items() if isinstance(value, Mapping) else value
    if not isinstance(pairs, Iterable) or isinstance(pairs, str):
        return "are not keys with values; write them like {root: data, train: true}"
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and str(pair[0]).isidentifier()):
            return "are not keys with values, or a key is no name in Python; write them like {root: data, train: true}"
        entries = pair[1] if isinstance(pair[1], tuple | list) else (pair[1],)
        if not all(isinstance(entry, bool | int | float | str | None) for entry in entries):
            return f"{pair[0]} is nested; take numbers, texts, true, false and lists of them"
    return ""


Argument = bool | int | float | str | None | tuple[bool | int | float | str | None, ...]
Arguments = Annotated[tuple[tuple[str, Argument], ...], PlainValidator(_pair_up)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]


class DataConfig(Section):
    """Where the examples come from, how they are scaled and how many of them are held out for evaluation.

    The user's own examples: `idx`, the files of MNIST and Fashion-MNIST, gzipped or not; `npy`, one array in a file;
    `npz`, arrays by name in one file; `csv`, a table of numbers; `torch`, any `torch.utils.data.Dataset`. Keys that a
    source does not have are refused.
    """

    source: Source
    num_examples: Annotated[int, Field(ge=2, le=LARGEST_EXAMPLE_COUNT)] | None = None
    """Of synthetic data only; None makes enough for any minibatch."""
    path: Text | None = None
    """idx: the folder of the four files under their usual names, or the file of the training images. npy: the array of
    features, an example a row. npz, csv: the file. Relative to the folder of the experiment's file (an override: to
    the working directory); `~` is the home directory."""
    targets_path: Text | None = None
    """idx (where `path` is a file), npy: the file of the labels or targets that belong to `path`."""
    test_path: Text | None = None
    """The examples held out, in a file like `path`; the split by `test_fraction` then takes none from `path`."""
    test_targets_path: Text | None = None
    """idx, npy: the labels or targets that belong to `test_path`."""
    features_key: Name = "x"
    """npz: the name of the array of features."""
    targets_key: Name = "y"
    """npz: the name of the array of targets."""
    test_features_key: Name | None = None
    """npz: the name of the features held out, in `test_path` where that is given and else in `path`."""
    test_targets_key: Name | None = None
    """npz: the name of the targets held out."""
    target: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10_000), BeforeValidator(_list_names)] = ("-1",)
    """csv: the column that is learned, by its name in the header or by its index (from 0; -1 is the last); a list for
    several. All other columns are features."""
    header: bool | None = None
    """csv: whether the first line names the columns; None: it does where it holds anything but numbers."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """csv: what stands between two cells."""
    dataset: Annotated[str, Field(min_length=3, max_length=1000)] | None = None
    """torch: `package.module:Name`, a Dataset or a function that makes one; its items are pairs (features, target) and
    always the same. It is imported and made wherever the data is described, by `plan` too; the working directory is
    looked in last. An item is asked for twice: for its features, and for its target."""
    arguments: Arguments = ()
    """torch: keyword arguments of `dataset`, as they are: a path among them is not changed."""
    test_arguments: Arguments | None = None
    """torch: keyword arguments with which `dataset` makes the examples held out."""
    standardise: Standardise | None = None
    """Features less their mean, by their standard deviation, both of the training examples: `together`, one mean and
    one deviation for all features (images); `each`, one for every feature (tables; a constant feature becomes 0);
    `none`, as they are. None: together for idx, mnist5k and digits; none for torch; each for all others. All but
    `none` read the training features once before the first step."""
    standardise_targets: bool | None = None
    """The same, `each`, for the targets of a squared error; losses are then those of standardised targets. None: for
    diabetes only."""
    test_fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    """The part of the examples that is held out, drawn by `training.seed`; 0.2 unless given or test examples are. For a
    folder of idx files None takes the files t10k-..., where there are any, and a number leaves them aside."""

    @property
    def scaling(self) -> Standardise:
        """How features are standardised, the source's own way unless given."""
        usual: dict[str, Standardise] = {"idx": "together", "mnist5k": "together", "digits": "together"}
        usual |= {"torch": "none", "synthetic": "none"}
        return self.standardise or usual.get(self.source, "each")

    @property
    def scales_targets(self) -> bool:
        """Whether the targets of a squared error are standardised."""
        return self.source == "diabetes" if self.standardise_targets is None else self.standardise_targets

    @property
    def names_tests(self) -> bool:
        """Whether the examples held out are named, and so not drawn from the others."""
        return any(getattr(self, key) is not None for key in _NAMES_TESTS)

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """Each source has keys of its own, and some need each other."""
        source = given.get("source")
        if not isinstance(source, str) or source not in KEYS_OF_SOURCE:
            return
        own = KEYS_OF_SOURCE[source]
        yield from (_foreign(key) for key in given if _is_foreign(key, given[key], own))
        for key in _REQUIRED.get(source, ()):
            if given.get(key) is None:
                yield Conflict(key, f"is missing, source: {source} needs it; add {_EXAMPLES[key]}")
        yield from _unpaired(given, own)
        for key in ("arguments", "test_arguments"):
            if key in own and given.get(key) is not None and _wrong_argument(given[key]):
                yield Conflict(key, _wrong_argument(given[key]))

    @model_validator(mode="before")
    @classmethod
    def _default_test_fraction(cls, given: object) -> object:
        """The usual fraction, unless something else may say which examples are held out."""
        if not isinstance(given, Mapping) or given.get("source") == "idx":
            return given
        is_open = all(given.get(key) is None for key in ("test_fraction", "test_targets_key", *_NAMES_TESTS))
        return {**given, "test_fraction": DEFAULT_TEST_FRACTION} if is_open else given


def _is_foreign(key: str, value: object, own: tuple[str, ...]) -> bool:
    return value is not None and key != "source" and key in DataConfig.model_fields and key not in own


def _foreign(key: str) -> Conflict:
    sources = [name for name, keys in KEYS_OF_SOURCE.items() if key in keys]
    only = f"{sources[0]} only" if len(sources) == 1 else f"{', '.join(sources[:-1])} and {sources[-1]}"
    return Conflict(key, f"is for source: {only}; remove it (on the command line: data.{key}=null)")


def _unpaired(given: Mapping[str, Any], own: tuple[str, ...]) -> Iterator[Conflict]:
    """Keys that are there without what they belong to, or beside what they exclude."""
    for key, other in _COME_IN_PAIRS.items():
        if key in own and given.get(key) is not None and given.get(other) is None:
            yield Conflict(key, f"belongs to {other}, which is not given; add {other} or remove {key}")
    needs_targets = given.get("source") == "npy" or (given.get("source") == "idx" and given.get("targets_path"))
    if needs_targets and given.get("test_path") is not None and given.get("test_targets_path") is None:
        yield Conflict("test_path", "has no targets; add test_targets_path, the file that holds them")
    named = [key for key in _NAMES_TESTS if key in own and given.get(key) is not None]
    if named and given.get("test_fraction") is not None:
        yield Conflict("test_fraction", f"and {named[0]} both say which examples are held out; keep one of them")
