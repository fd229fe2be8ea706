"""The command line: exit codes, messages, files; never a traceback."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from partition.cli import VERBS, build_parser, main

ROOT = Path(__file__).parents[1]
EXPERIMENT = """\
model: {in_features: 12, hidden_features: [10, 9], out_features: 5, activation: gelu}
data: {source: synthetic, num_examples: 60}
training: {minibatch_size: 20, steps: 6}
optimizer: {lr: 1e-1, momentum: 0.9}
cluster:
  devices: {count: 2, kind: simulated, memory: %s, compute: 1 GFLOP/s, memory_bandwidth: 1 GB/s}
"""


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run directories land in the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(EXPERIMENT % "1 MiB")
    return str(path)


@pytest.fixture
def tight(tmp_path: Path) -> str:
    """A device that holds neither the whole minibatch nor much more than the parameters."""
    path = tmp_path / "tight.yaml"
    path.write_text(EXPERIMENT % "6000 B")
    return str(path)


def test_plan_ends_with_a_command_that_trains_it(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", small, "training.seed=3"]) == 0
    command = capsys.readouterr().out.strip().splitlines()[-1].split()
    assert command[:2] == ["partition", "train"]
    assert main(command[1:]) == 0
    assert "Peak memory, bytes" in capsys.readouterr().out


def test_train_writes_the_run(small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", small, "--out", "run"]) == 0
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "plan.json", "command.txt", "environment.json", "metrics.jsonl", "summary.json"} <= names
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(float.fromhex(line["loss_hex"]) == line["loss"] for line in lines)
    assert all(line["objective"] == line["loss"] + line["penalty"] for line in lines)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["step_time"]["clock"] == "simulated"
    assert all(one["predicted_peak_bytes"] == one["measured_peak_bytes"] for one in summary["per_device"])
    assert "not a measurement" in capsys.readouterr().out


def test_an_earlier_run_is_moved_aside(small: str, tmp_path: Path) -> None:
    for _ in range(3):
        assert main(["train", small, "--out", "run", "--json"]) == 0
    assert all((tmp_path / name / "summary.json").exists() for name in ("run", "run.1", "run.2"))


@pytest.mark.parametrize("verb", ["plan", "train", "validate", "config"])
def test_json_is_one_document_and_nothing_else(verb: str, small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, small, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema_version"] == 1


def test_resolved_config_is_a_config(small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", small, "--set", "training.minibatch_size=10"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / "small.yaml"
    again.write_text(first)
    assert main(["config", str(again)]) == 0
    assert capsys.readouterr().out == first
    assert "minibatch_size: 10" in first


def test_overrides_may_stand_anywhere(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By itself argparse refuses what follows an option: `plan FILE --out DIR key=value` was unrecognized."""
    size = "training.minibatch_size=10"
    printed = []
    for arguments in ([small, size, "--json"], [small, "--json", size], [small, "--json", "--set", size]):
        assert main(["config", *arguments]) == 0
        printed.append(capsys.readouterr().out)
    assert json.loads(printed[0])["experiment"]["training"]["minibatch_size"] == 10
    assert printed[0] == printed[1] == printed[2]


def test_unknown_option_is_named(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", small, "--bogus", "training.seed=1"])
    assert "unknown option --bogus" in capsys.readouterr().err


def test_small_numbers_may_be_written_as_people_do(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML reads 1e-3 as text."""
    Path(small).write_text(Path(small).read_text().replace("lr: 1e-1", "lr: 1e-3"))
    assert main(["config", small, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["experiment"]["optimizer"]["lr"] == 0.001


def test_unknown_key_says_where_it_stands(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(small)
    path.write_text(path.read_text().replace("steps: 6", "stepz: 6"))
    assert main(["plan", small]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "small.yaml:3: training.stepz: " in line


def test_unknown_strategy_lists_those_that_there_are(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", small, "--strategy", "magic"]) == 2
    error = capsys.readouterr().err
    assert "--strategy magic: no such candidate; there are " in error
    assert "accumulate-" in error
    assert "partition plan --all" in error


def test_plan_and_strategy_together_are_refused(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", small, "--strategy", "whole", "--plan", "plan.json"]) == 2
    assert "--plan and --strategy both name what to train" in capsys.readouterr().err


def test_plan_of_another_experiment_is_refused(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", small]) == 0
    assert main(["train", small, "--plan", "runs/small/plan.json", "training.minibatch_size=21"]) == 2
    error = capsys.readouterr().err
    assert "was made for training.minibatch_size = 20, the experiment says 21" in error


def test_trained_strategy_is_the_one_named(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", small, "--strategy", "accumulate-2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["candidate"] == "accumulate-2"
    assert json.loads(Path("runs/small/plan.json").read_text())["candidate"]["num_microbatches"] == 2


def test_progress_calls_simulated_speed_simulated(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", small]) == 0
    steps = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  step ")]
    assert len(steps) == 6
    assert all(line.endswith("samples/s (simulated)") for line in steps)


def test_failed_run_leaves_an_earlier_one_alone(small: str, tmp_path: Path) -> None:
    assert main(["train", small, "--out", "run"]) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert main(["train", small, "--out", "run", "optimizer.lr=1e30"]) == 4
    assert (tmp_path / "run.1" / "metrics.jsonl").read_bytes() == before
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("verb", ["plan", "train", "validate", "config"])
def test_help_of_a_verb_is_a_sentence_and_explains_every_option(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    printed = capsys.readouterr().out
    assert f"usage: partition {verb} " in printed
    assert re.search(r"^[A-Z][a-z, ]+\.$", printed, re.MULTILINE)
    entries = [line for line in printed.splitlines() if re.match(r"  \S", line)]
    assert len(entries) >= 5
    assert all(re.match(r"  .+\S {2,}\S", line) for line in entries)


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    assert all(re.search(rf"^    {verb}  ", printed, re.MULTILINE) for verb in ("plan", "train", "validate", "config"))


def test_infeasible_strategy_is_refused_and_stopped_when_forced(tight: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", tight, "--strategy", "whole"]) == 3
    assert "--force tries" in capsys.readouterr().err
    assert main(["train", tight, "--strategy", "whole", "--force"]) == 4
    message = capsys.readouterr().err
    assert "device simulated:0 is out of memory in stage 0, action 0F0" in message
    assert "bytes are free" in message


def test_nothing_fits_has_an_exit_code_of_its_own(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", small, "cluster.devices.memory=1 KiB"]) == 3
    assert "Nothing fits" in capsys.readouterr().out
    assert main(["plan", small, "planner.num_stages=[9]", "planner.strategies=[pipeline]"]) == 3
    assert "9 stages, but the network has 3 layers; take num_stages <= 3" in capsys.readouterr().out
    assert main(["train", small, "cluster.devices.memory=1 KiB"]) == 3


def test_all_errors_of_a_file_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text((EXPERIMENT % "1 MiB").replace("lr: 1e-1", "lr: fast, batch_size: 3").replace("gelu", "gelo"))
    assert main(["validate", str(path)]) == 2
    errors = capsys.readouterr().err
    for expected in ("wrong.yaml:1: model.activation", "wrong.yaml:4: optimizer.lr", "optimizer.batch_size"):
        assert expected in errors
    assert main(["validate", str(path), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 3


def test_what_only_the_planner_finds_wrong_is_a_document_too(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", small, "planner.pinned={layers: 9, device: 0}", "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["message"] == "planner.pinned.0: there is no layer 9; layers are 0 to 2"


def test_data_and_model_must_agree(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", small, "data.source=mnist5k", "data.num_examples=null"]) == 2
    errors = capsys.readouterr().err
    assert "model.in_features: is 12, but an example of mnist5k has 784 features" in errors
    assert "model.out_features" in errors


HOSTILE: list[list[str]] = [
    [],
    ["fly", "{small}"],
    ["plan"],
    ["plan", "missing.yaml"],
    ["plan", "."],
    ["plan", "/dev/null"],
    ["plan", sys.executable],
    ["plan", "{small}", "training.minibatch_size=0"],
    ["plan", "{small}", "training.minibatch_size=1000"],
    ["plan", "{small}", "training.minibatch_size=1e30"],
    ["plan", "{small}", "model.hidden_features={{width: 1, depth: 1000000000}}"],
    ["plan", "{small}", "nonsense"],
    ["plan", "{small}", "a.b.c=1"],
    ["train", "{small}", "cluster.devices.kind=cuda"],
    ["plan", "{small}", "cluster.devices={{name: B9000}}"],
    ["plan", "{small}", "model=" + "[" * 5000],
    ["plan", "{small}", "training=" + "{{a: " * 500 + "1" + "}}" * 500],
    ["plan", "{small}", "optimizer.lr=" + "9" * 5000],
    ["plan", "{small}", "optimizer.lr=nan"],
    ["plan", "{small}", "planner.strategies=[]"],
    ["plan", "{small}", "cluster.devices=[]"],
    ["plan", "{small}", "=1"],
    ["plan", "{small}", "training.minibatch_size"],
    ["plan", "{small}", "--out", "{small}"],
    ["plan", "x" * 5000],
    ["plan", "a\0b"],
    ["plan", ""],
    ["train", "{small}", "--plan", "/dev/zero"],
    ["train", "{small}", "--plan", "."],
    ["plan", "{small}", "--out", "/proc/nowhere"],
    ["train", "{small}", "--out", "/proc/nowhere"],
    ["train", "{small}", "--strategy", "magic"],
    ["train", "{small}", "--plan", "missing.json"],
    ["train", "{small}", "--plan", "{small}"],
    ["train", "{small}", "--plan", "missing.json", "--strategy", "whole"],
    ["train", "{small}", "cluster.devices={{name: RTX-4090}}"],
    ["train", "{small}", "optimizer.lr=1e30"],
    ["validate", "{small}", "--set", "optimizer.lr"],
]


@pytest.mark.parametrize("arguments", HOSTILE, ids=lambda arguments: " ".join(arguments)[:60])
def test_bad_input_ends_in_a_message_and_a_code(
    arguments: list[str], small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never a traceback: an exception other than SystemExit would fail the test."""
    try:
        code: Any = main([argument.format(small=small) for argument in arguments])
    except SystemExit as exit_:
        code = exit_.code
    assert code in (2, 3, 4)
    error = capsys.readouterr().err
    assert error.strip()
    assert "Traceback" not in error


def slow_where_orders_are_searched(path: Path) -> Any:
    """An experiment as a parameter; one takes seconds, for every order of its unlike devices is tried."""
    marks = [pytest.mark.slow] if path.stem == "unlike_devices" else []
    return pytest.param(path, marks=marks, id=path.stem)


@pytest.mark.parametrize(
    "path", [slow_where_orders_are_searched(of) for of in sorted((ROOT / "configs").glob("*.yaml"))]
)
def test_planning_imports_no_torch(path: Path, tmp_path: Path) -> None:
    """NumPy it does: its 40 ms are fewer than its arrays save, as a plan of any pipeline finds dozens of splits."""
    code = (
        "import sys; from partition.cli import main; code = main(['plan', sys.argv[1], '--json']); "
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["chosen"]


def test_a_verb_imports_none_of_the_others() -> None:
    code = (
        "import sys; from partition.cli import build_parser; build_parser('plan'); "
        "print(*sorted(name for name in sys.modules if name.startswith('partition.cli.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    names = {name.removeprefix("partition.cli.") for name in done.stdout.split()}
    assert "planning" in names
    assert not names & (VERBS.keys() - {"planning"})


def test_every_verb_is_listed_with_its_module() -> None:
    """A verb of a module that is not listed with it would only be found where all modules are imported."""
    assert {name: set(names) for name, names in VERBS.items()} == {name: verbs_of(name) for name in VERBS}


def verbs_of(module: str) -> set[str]:
    (own,) = (names for name, names in VERBS.items() if name == module)
    verbs = next(action for action in build_parser(own[0])._actions if isinstance(action, argparse._SubParsersAction))
    return set(verbs.choices)


def test_reader_that_leaves_is_no_error(small: str) -> None:
    command = f"{sys.executable} -m partition plan {small} --all | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_end_a_run_with_their_codes(name: str, code: int, small: str, tmp_path: Path) -> None:
    import signal

    command = [sys.executable, "-m", "partition", "train", small, "training.steps=1000000", "--out", "run"]
    run = subprocess.Popen(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
                           stdout=subprocess.PIPE, text=True)  # fmt: skip
    metrics = tmp_path / "run" / "metrics.jsonl"
    while run.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    run.send_signal(getattr(signal, name))
    _, error = run.communicate(timeout=60)
    assert run.returncode == code
    assert "which is saved; --resume latest goes on" in error
    assert "Traceback" not in error
    json.loads(metrics.read_text().splitlines()[0])


def test_names_keep_their_letters_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["curvature", "--help"])
    assert "The largest eigenvalue of the Hessian, by power iteration." in capsys.readouterr().out


def test_ctrl_c_while_a_verb_is_imported_is_answered_as_later(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes half a second, and ended in a traceback."""

    def interrupt(name: str) -> None:
        raise KeyboardInterrupt(name)

    monkeypatch.setattr("partition.cli.import_module", interrupt)
    assert main(["plan", "x.yaml"]) == 130
    assert capsys.readouterr() == ("", "partition: interrupted; it did not come to its end\n")


def test_what_answers_to_ctrl_c_imports_nothing_that_takes_long() -> None:
    """The rest is imported by `main`."""
    code = "import sys, partition.cli; print(*sorted(name for name in sys.modules if name.startswith('partition.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["partition.cli", "partition.cli.processes", "partition.errors"]
