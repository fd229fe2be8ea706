"""A run that was saved goes on bit for bit, on any number of stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from partition.data.dataset import load
from partition.errors import CheckpointError
from partition.plan import Search
from partition.record.checkpoint import find, list_checkpoints, read_latest, verify
from partition.runtime import Fleet
from partition.runtime.checkpoint import Saver
from partition.runtime.checkpoint.files import DiskError
from partition.runtime.checkpoint.saver import Resumption, surrounding_notes
from tests.runtime.by_hand import find as find_candidate
from tests.runtime.checkpoint.saved import ADAM, ADAMW, PLAIN, SGD, is_equal, run, saved_once, small, state


@pytest.mark.parametrize(
    ("optimizer", "number_format", "bias"),
    [
        (SGD, "float32", True),
        (ADAM, "float32", False),
        (ADAMW, "float64", True),
        (PLAIN, "float64", False),
        (ADAM, "bfloat16", True),
    ],
)
@pytest.mark.parametrize("then", ["accumulate-4", "pipeline-2x4-1f1b", "pipeline-4x4-gpipe"])
def test_ten_steps_and_five_plus_five_are_the_same(
    folder: Path, optimizer: dict[str, Any], number_format: str, bias: bool, then: str
) -> None:
    """Saved by three stages within the second epoch of 22, 22 and 20 examples."""
    changes = {"optimizer": optimizer, "number_format": number_format, "bias": bias}
    straight, reference = run(small(10, **changes), "accumulate-4", folder.parent / "other" / "checkpoints")
    first, _ = run(small(5, **changes), "pipeline-3x4-1f1b", folder)
    second, result = run(small(10, **changes), then, folder, resume="latest")
    assert [one.step for one in second] == [6, 7, 8, 9, 10]
    assert [one.loss_hex for one in first + second] == [one.loss_hex for one in straight]
    assert [one.grad_norm for one in first + second] == [one.grad_norm for one in straight]
    assert is_equal(state(result.fleet), state(reference.fleet))
    assert result.summary.final.test_loss == reference.summary.final.test_loss


def test_without_the_optimizers_state_the_course_would_be_another(folder: Path) -> None:
    """The comparison above would notice."""
    straight, _ = run(small(10), "accumulate-4", folder.parent / "other" / "checkpoints")
    _, result = run(small(5), "accumulate-4", folder)
    config = small(10)
    search = Search(config)
    fleet, dataset = Fleet(search, find_candidate(search, "accumulate-4")), load(config)
    with torch.no_grad():
        for own, trained in zip(fleet.parameters(), result.fleet.parameters(), strict=True):
            own.copy_(trained)
    from partition.data.minibatches import minibatches

    losses = [fleet.train(dataset.train_x, dataset.train_y, minibatches(64, 22, 0, 1)[2]).loss.hex()]
    losses += [fleet.train(dataset.train_x, dataset.train_y, one).loss.hex() for one in minibatches(64, 22, 0, 2)[:2]]
    assert losses[0] == straight[5].loss_hex
    assert losses[1:] != [one.loss_hex for one in straight[6:8]]


def test_a_run_saves_every_so_many_steps_and_at_its_end(folder: Path) -> None:
    run(small(7, every=3, keep=9), "whole", folder)
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000003", "step-00000006", "step-00000007"]
    assert find("latest", folder.parent).step == 7
    for path in list_checkpoints(folder):
        verify(find(str(path), folder))


def test_the_oldest_are_removed_and_nothing_else_is_left(folder: Path) -> None:
    run(small(9, every=2, keep=2), "whole", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-00000008", "step-00000009"]


def test_keep_0_saves_nothing(folder: Path) -> None:
    run(small(2, keep=0), "whole", folder)
    assert not folder.exists()


def test_what_it_says_of_itself(folder: Path) -> None:
    record, _ = saved_once(folder.parent)
    facts = record.facts
    assert (facts.position.step, facts.position.epoch, facts.position.minibatch) == (2, 0, 2)
    assert (facts.num_train, facts.seed, facts.number_format) == (64, 0, "float32")
    assert (facts.candidate.name, facts.candidate.minibatch_size, facts.candidate.num_microbatches) == ("whole", 22, 1)
    assert (facts.surroundings.torch_version, facts.surroundings.backend) == (torch.__version__, "cpu")
    assert facts.experiment["model"]["hidden_features"] == [10, 9, 8]


def test_going_back_forgets_what_came_after(folder: Path) -> None:
    """Steps 4 and 6 belong to a course that is given up: they make room before what is written later."""
    run(small(6, every=2, keep=3), "whole", folder)
    run(small(5, every=1, keep=3), "whole", folder, resume="2")
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000003", "step-00000004", "step-00000005"]
    assert read_latest(folder) == "step-00000005"


def test_a_killed_run_that_went_back_goes_on_from_where_it_went_back_to(folder: Path) -> None:
    run(small(6, every=2), "whole", folder)
    config = small(9, every=100)
    search = Search(config)
    candidate, record = find_candidate(search, "whole"), find("2", folder.parent)
    resumption = Resumption(record=record, position=record.facts.position, is_own=True)
    Saver(folder, config, candidate, 64, resumption=resumption).begin(Fleet(search, candidate))
    assert find("latest", folder.parent).step == 2


def test_a_step_that_is_there_already_is_replaced(folder: Path) -> None:
    run(small(4, every=2), "whole", folder)
    before = find("4", folder.parent).facts.written
    (folder / "step-00000004" / "checkpoint.json").write_text("")
    run(small(4, every=2), "whole", folder, resume="2")
    verify(find("4", folder.parent))
    assert find("latest", folder.parent).facts.written >= before
    assert not list(folder.glob(".*"))


def test_leftovers_of_a_killed_save_go_when_the_next_run_begins(folder: Path) -> None:
    run(small(2), "whole", folder)
    (folder / ".step-00000009.part").mkdir()
    (folder / ".step-00000009.part" / "layer-00000.safetensors").write_bytes(b"half")
    run(small(4), "whole", folder, resume="latest")
    assert not list(folder.glob(".*"))


def test_a_damaged_checkpoint_leaves_the_run_unbegun(folder: Path) -> None:
    record, _ = saved_once(folder.parent)
    file = record.path / "layer-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"layer-00003\.safetensors: is damaged: SHA-256"):
        run(small(4), "whole", folder, resume="latest")


def test_other_threads_and_another_torch_are_noted(folder: Path) -> None:
    record, fleet = saved_once(folder.parent)
    assert list(surrounding_notes(record, fleet.candidate)) == []
    torch.set_num_threads(2)
    assert list(surrounding_notes(record, fleet.candidate)) == ["num_threads was 1 and is 2"]


class Ranks:
    """Three processes, of which this one is rank 1; the others say what a test has them say."""

    def __init__(self, others: list[str]) -> None:
        self.others = [np.frombuffer(text.encode(), dtype=np.uint8) for text in others]
        self.is_length = True

    def __call__(self, numbers: Any) -> list[Any]:
        if not self.is_length:
            padded = [np.pad(one.astype(float), (0, len(numbers) - len(one))) for one in self.others]
        else:
            padded = [np.array([float(len(one))]) for one in self.others]
        self.is_length = not self.is_length
        return [padded[0], numbers, padded[1]]


def test_what_one_rank_runs_into_all_ranks_raise(folder: Path) -> None:
    config = small(2)
    search = Search(config)
    candidate = find_candidate(search, "whole")
    share = Ranks(["null", '"the disk is full"'])
    saver = Saver(folder, config, candidate, 64, is_leader=False, share=share)
    with pytest.raises(DiskError, match=r"^rank 2: the disk is full$"):
        saver.save(1, Fleet(search, candidate))


def test_only_the_leader_names_a_checkpoint(folder: Path) -> None:
    config = small(2)
    search = Search(config)
    candidate = find_candidate(search, "whole")
    Saver(folder, config, candidate, 64, is_leader=False).save(1, Fleet(search, candidate))
    assert [path.name for path in folder.iterdir()] == [".step-00000001.part"]
