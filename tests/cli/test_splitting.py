"""`partition split`: figures, devices, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from partition.cli import main

ROOT = Path(__file__).parents[2]
TABLE = """\
name,forward_s,backward_s,activation_bytes,parameter_bytes,saved_bytes
embed,1,1,1000,100,10
block 1,2,2,1000,100,10
block 2,2,2,250,100,10
block 3,1,3,1000,100,10
head,1,1,0,100,10
"""
CLUSTER = """\
cluster:
  devices:
    - {kind: simulated, memory: 1 MiB, compute: 2 GFLOP/s}
    - {kind: simulated, memory: 1 MiB, compute: 1 GFLOP/s}
  links: {bandwidth: 1 kB/s, latency: 1 s}
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of 2, 4, 4, 4 and 2 seconds; the working directory is its own."""
    monkeypatch.chdir(tmp_path)
    Path("chain.csv").write_text(TABLE)
    return "chain.csv"


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["split", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return {key: found[key] for key in ("boundaries", "bottleneck_s", "step_s", "lower_bound_s", "optimal")}


def test_the_least_step(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Cuts of 2, 2, 0.5 and 2 s: the cheap one, and 16 + 0.5 + 3 * 10 s."""
    found = answer(capsys, table, "--stages", "2", "--microbatches", "4", "--bandwidth", "1 kB/s")
    assert found == {"boundaries": [3], "bottleneck_s": 10.0, "step_s": 46.5, "lower_bound_s": 46.5, "optimal": True}


def test_the_least_bottleneck(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of three stages none can be below 6 s."""
    found = answer(capsys, table, "--stages", "3", "--objective", "bottleneck")
    assert (found["boundaries"], found["bottleneck_s"], found["lower_bound_s"]) == ([2, 3], 6.0, 6.0)


def test_one_stage_and_as_many_as_layers(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, table, "--stages", "1")["boundaries"] == []
    assert answer(capsys, table, "--stages", "5")["boundaries"] == [1, 2, 3, 4]


def test_a_cluster_scales_and_latency_is_left_to_plans(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The second device takes twice as long: 10 + 0.5 + 12 s for one microbatch."""
    Path("cluster.yaml").write_text(CLUSTER)
    found = answer(capsys, table, "--stages", "2", "--cluster", "cluster.yaml", "--objective", "bottleneck")
    assert (found["boundaries"], found["bottleneck_s"], found["step_s"]) == ([3], 12.0, 22.5)


def test_memory_moves_the_cut(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Stage 0 keeps two microbatches: 3 layers of 220 bytes and 500 of buffers, or 2 layers and 2000."""
    fitting = ("--stages", "2", "--microbatches", "4", "--memory")
    assert answer(capsys, table, *fitting, "1160")["boundaries"] == [3]
    assert main(["split", table, *fitting, "1159"]) == 3
    error = capsys.readouterr().err
    assert "needs 1.1 KiB (1160 bytes), device 0 has 1.1 KiB (1159 bytes)" in error
    assert error.count("\n") == 1


def test_the_text_says_what_bounds_it(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", table, "--stages", "2", "--microbatches", "4", "--bandwidth", "1 kB/s"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "chain.csv: 5 layers, 2 stages, 4 microbatches"
    assert lines[4].split() == ["0", "0", "0-2", "embed", "...", "block", "2", "10.0", "s", "500", "ms", "1.1", "KiB"]
    assert lines[-3] == "Bound by stage 0 (layers 0-2): 10.0 s a microbatch."
    assert lines[-2].endswith("then 3 more microbatches at 10.0 s each.")
    assert lines[-1] == "No split into 2 stages has a shorter step: proved by search."


def test_messages_may_bound_it(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", table, "--stages", "2", "--bandwidth", "1 B/s"]) == 0
    assert "Bound by the messages over the cut after stage 0 (layers 0-2): 8.33 min" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--stages is missing; say into how many stages, for example --stages 4"),
        (["--stages", "0"], "chain.csv: 0 stages of 5 layers; take 1 to 5"),
        (["--stages", "6"], "chain.csv: 6 stages of 5 layers; take 1 to 5"),
        (["--stages", "9" * 20], f"chain.csv: {'9' * 20} stages of 5 layers; take 1 to 5"),
        (["--stages", "2", "--microbatches", "0"], "0 microbatches; take 1 to"),
        (["--stages", "2", "--bandwidth", "fast"], "--bandwidth: 'fast' is not a data rate"),
        (["--stages", "2", "--memory", "0"], "--memory: 0 is nothing; give more, or leave the option out"),
        (["--stages", "2", "--cluster", "none.yaml"], "none.yaml: there is no such file"),
        (["--stages", "2", "--cluster", "c.yaml", "--memory", "1 GiB"], "--memory: --cluster says it for every device"),
        (["--stages", "2", "training.seed=1"], "unexpected 'training.seed=1'; a split takes one table and options"),
    ],
)
def test_refusals(table: str, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", table, *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_memory_needs_the_column(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(table).write_text("\n".join(line.rsplit(",", 1)[0] for line in TABLE.splitlines()))
    assert main(["split", table, "--stages", "2", "--memory", "1 GiB"]) == 2
    assert "has no column saved_bytes, without which a memory limit cannot be kept to" in capsys.readouterr().err
    assert answer(capsys, table, "--stages", "2")["optimal"] is True


def test_a_cluster_file_has_a_cluster(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cluster.yaml").write_text("model: {in_features: no}\n")
    assert main(["split", table, "--stages", "2", "--cluster", "cluster.yaml"]) == 2
    assert "cluster.yaml:1: cluster: is missing; add it" in capsys.readouterr().err


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    configs = ROOT / "configs"
    found = answer(
        capsys, str(configs / "vgg16.csv"), "--stages", "4", "--microbatches", "16", "--cluster",
        str(configs / "chain.yaml"),
    )  # fmt: skip
    assert len(found["boundaries"]) == 3  # type: ignore[arg-type]


def stages(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[tuple[str, int, int]]:
    """Device, first and last layer of every stage."""
    capsys.readouterr()
    assert main(["split", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return [(stage["device"], stage["first_layer"], stage["last_layer"]) for stage in found["stages"]]


def test_layers_are_kept_together_and_pinned(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By name and by index, on like devices and on those of a cluster in another order than its own."""
    Path("cluster.yaml").write_text(CLUSTER)
    assert stages(capsys, table, "--stages", "2", "--keep-together", "block 1", "head") == [("0", 0, 0), ("1", 1, 4)]
    assert stages(capsys, table, "--stages", "3", "--pin", "0", "0", "2", "--pin", "2", "2", "0")[::2] == [
        ("2", 0, 1),
        ("1", 3, 4),
    ]
    on_cluster = stages(capsys, table, "--stages", "2", "--cluster", "cluster.yaml", "--pin", "0", "0", "simulated:1")
    assert [device for device, _, _ in on_cluster] == ["simulated:1", "simulated:0"]


def test_what_constraints_cost_is_said(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten and eight seconds to begin with; two and fourteen with all but the first together."""
    arguments = ("split", table, "--stages", "2", "--objective", "bottleneck")
    assert main([*arguments, "--keep-together", "1", "4"]) == 0
    out = capsys.readouterr().out
    assert "No split into 2 stages has a shorter bottleneck with layers 1-4 kept together: proved by search." in out
    assert "Without that the bottleneck would be 10.0 s: it costs a factor of 1.4." in out
    assert main([*arguments, "--keep-together", "0", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["constraints"], found["unconstrained"]) == ("layers 0-1 kept together", found["bottleneck_s"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep-together", "0", "9"), "--keep-together 0 9: there is no layer 9; layers are 0 to 4"),
        (("--keep-together", "0", "tail"), "--keep-together 0 tail: no layer is named 'tail'; write a name of the"),
        (("--pin", "0", "0", "2"), "--pin 0 0 2: there is no device 2; write 0 to 1"),
        (
            ("--pin", "0", "2", "0", "--pin", "2", "3", "1"),
            "--pin 2 3 1: layers 0-3, kept in one stage, cannot be on device 1 and, by --pin 0 2 0, on device 0; pin",
        ),
        (("--keep-together", "0", "4"), "chain.csv: 2 stages, but layers kept together leave 1 part; take at most 1"),
        (
            ("--pin", "0", "0", "1", "--pin", "2", "2", "0", "--pin", "4", "4", "1"),
            "chain.csv: no order of 2 devices has a split with layer 0 pinned to device 1, layer 2 pinned to device 0",
        ),
    ],
)
def test_constraints_that_cannot_be(
    table: str, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr."""
    assert main(["split", table, "--stages", "2", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"partition: {message}")
    assert captured.err.count("\n") == 1


def test_layers_kept_together_that_fit_no_device(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, as where nothing fits at all."""
    assert main(["split", table, "--stages", "2", "--memory", "2700 B", "--keep-together", "1", "3"]) == 3
    assert "layers 1-3, kept in one stage, need " in capsys.readouterr().err
