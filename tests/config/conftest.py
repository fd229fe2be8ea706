"""An experiment that is right, and ways to change and load it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from partition.config import ExperimentConfig, load_config
from partition.errors import ConfigError

Load = Callable[..., ExperimentConfig]
Problems = Callable[..., list[str]]

RIGHT = """\
model:
  in_features: 4
  hidden_features: [8, 8]
  out_features: 2
data:
  source: synthetic
training:
  minibatch_size: 6
optimizer:
  lr: 0.1
cluster:
  devices:
    kind: simulated
    memory: 1 MiB
"""


@pytest.fixture(scope="session")
def right() -> str:
    """The text of an experiment without a mistake."""
    return RIGHT


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Load a text (or bytes) as the file `experiment.yaml`, with overrides."""
    path = tmp_path_factory.mktemp("config") / "experiment.yaml"

    def load_content(content: str | bytes = RIGHT, overrides: Sequence[str] = (), **options: Any) -> ExperimentConfig:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_config(path, overrides, **options)

    return load_content


@pytest.fixture(scope="session")
def problems(load: Load) -> Problems:
    """Every problem of a text with overrides, as `line: key: message` or `override '...': key: message`."""

    def list_problems(content: str | bytes = RIGHT, overrides: Sequence[str] = ()) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(content, overrides)
        assert caught.value.problems
        for problem in caught.value.problems:
            assert str(problem).isprintable()
            assert len(str(problem)) < 600
            assert "pydantic" not in str(problem)
        places = [problem._replace(file=Path(problem.file).name) for problem in caught.value.problems]
        return [str(place).removeprefix("experiment.yaml:").strip() for place in places]

    return list_problems
