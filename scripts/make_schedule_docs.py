"""docs/schedules.md and its pictures, from the generators and the replay alone.

python -m scripts.make_schedule_docs                       writes docs/schedules.md and docs/schedules/*.svg

No figure in the document is written by hand: tests/scripts/test_schedule_docs.py makes it again and compares.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from partition.config import ExperimentConfig
from partition.plan import Layout, Search, Segment, replay_costs
from partition.plan.simulation import with_bytes
from partition.report.picture import draw_picture
from partition.schedule import draw, generate
from partition.schedule.actions import Kind
from partition.schedule.replay_costs import stage_costs
from partition.schedule.simulation import ScheduleFigures, Simulation, figures, simulate
from scripts.published_schedules import ENTRIES, SOURCES, Entry

DOCS = Path(__file__).resolve().parents[1] / "docs"
RANKS, MICROBATCHES = 4, 8
LAYERS, WIDTH, ROWS = 16, 1024, 32
"""of the network whose bytes are given, and examples of a microbatch"""


def main() -> None:
    """Write the document and the pictures."""
    pictures = DOCS / "schedules"
    pictures.mkdir(exist_ok=True)
    for entry in ENTRIES:
        draw_picture(unit_simulation(entry.name, RANKS, MICROBATCHES), pictures / f"{entry.name}.svg", "svg")
    (DOCS / "schedules.md").write_text(document(), encoding="utf-8")


def document() -> str:
    """The whole text."""
    parts = [_introduction(), *map(_section, ENTRIES), _comparison(), _by_microbatches(), _own_bytes(), _sources()]
    return "\n\n".join(parts) + "\n"


def unit_simulation(name: str, ranks: int, microbatches: int) -> Simulation:
    """A schedule with F = I = W = 1 on each rank, so that a stage of v takes 1/v; memory in stages' microbatches."""
    schedule = generate(name, num_ranks=ranks, num_microbatches=microbatches)
    stages = schedule.num_stages
    part_s = [ranks / stages] * stages
    costs = stage_costs(
        num_microbatches=microbatches,
        forward_s=part_s,
        input_grad_s=part_s,
        weight_grad_s=part_s,
        send_s=[0.0] * stages,
        kept_bytes=[1] * stages,
    )
    return simulate(schedule, costs, is_in_bytes=False)


def replayed_idle(entry: Entry, found: ScheduleFigures) -> float:
    """The idle time that the published formula speaks of, of the rank that waits most."""
    return max(rank.bubble_s if entry.is_idle_of_span else rank.idle_s for rank in found.ranks)


def replayed_in_flight(simulation: Simulation, found: ScheduleFigures) -> float:
    """Most microbatches between F and W on any rank, in microbatches of a whole rank."""
    stages_per_rank = simulation.schedule.num_stages / simulation.schedule.num_ranks
    return max(rank.most_in_flight for rank in found.ranks) / stages_per_rank


def _introduction() -> str:
    return """# Schedules

Made by `python -m scripts.make_schedule_docs`: every figure below is that of a replay, and a test makes them again.

Draw, convert, check and search for schedules, and replay plans:

```sh
partition schedule zb_h1 --ranks 4 --microbatches 8                      # a grid and its figures
partition schedule zbv --ranks 4 --microbatches 8 --out-file zbv.svg     # or .png, .csv, .json
partition schedule 1f1b --ranks 4 --microbatches 8 --format csv --lowered
partition schedule --file mine.csv --check                               # exit code 0, or 2 with the place
partition schedule auto --ranks 4 --microbatches 8 --forward-s 1,2,1,1 --send-s 0.1 --memory-limit 6
partition simulate my.yaml --trace step.json --out-file step.png         # the chosen plan, to the byte
```

Symbols: p ranks, m microbatches, v stages on a rank; F forward, B backward, I input gradient, W weight gradient, with
B = I + W. In the grids a column is a tick, F, I and W take one and B two. An affine layer keeps one tensor from F to B
(or I) and **two from I to W**, its input and the gradient of its pre-activation. So a late W costs memory, and more of
it than in the papers, whose transformer layers give much back at I."""


def _section(entry: Entry) -> str:
    schedule = generate(entry.name, num_ranks=RANKS, num_microbatches=MICROBATCHES)
    picture = f"![{entry.name}](schedules/{entry.name}.svg)"
    return f"## {entry.name}\n\n{entry.words}\n\n```text\n{draw(schedule)}\n```\n\n{picture}"


def _comparison() -> str:
    rows = []
    for entry in ENTRIES:
        simulation = unit_simulation(entry.name, RANKS, MICROBATCHES)
        found = figures(simulation)
        stages = simulation.schedule.num_stages // RANKS
        idle, flight = replayed_idle(entry, found), replayed_in_flight(simulation, found)
        kept = max(rank.peak_bytes for rank in found.ranks) / stages
        rows.append([
            entry.name,
            f"{stages}",
            f"{found.makespan_s:g}",
            f"{found.bubble_fraction:.1%}",
            f"{max(rank.bubble_s for rank in found.ranks):g}",
            f"{idle:g} = {entry.idle.formula} {entry.idle.source}",
            f"{flight:g} = {entry.in_flight.formula} {entry.in_flight.source}",
            f"{kept:g}",
            f"{found.num_transfers}",
        ])  # fmt: skip
    header = (
        "schedule",
        "v",
        "step",
        "idle of step",
        "idle in span",
        "published idle",
        "in flight",
        "kept",
        "messages",
    )
    legend = f"""## Side by side

{RANKS} ranks, {MICROBATCHES} microbatches, F = I = W = 1 on every rank (a stage of v takes 1/v), messages free.

- *step*: from the first action to the last; *idle of step*: the share of it in which a rank does nothing.
- *idle in span*: the longest that a rank waits between its first computation and its last. What is idle only at the
  ends returns as soon as ranks wait for one another before the optimizer step, as a norm of all gradients makes them.
- *published idle*: of each rank, over the step, for zb_h2 and zbv in the span; with formula and source.
- *in flight*: most microbatches between F and W on any rank; *kept*: the same with those between I and W counted twice,
  as they are here. Both in microbatches of a whole rank.
- *messages*: in both directions, of one step."""
    return f"{legend}\n\n{_table(header, rows)}"


def _by_microbatches() -> str:
    counts = (RANKS, 2 * RANKS, 4 * RANKS, 8 * RANKS)
    rows = [
        [entry.name, *(f"{figures(unit_simulation(entry.name, RANKS, m)).bubble_fraction:.1%}" for m in counts)]
        for entry in ENTRIES
    ]
    text = f"## Idle share of the step by microbatches\n\nOn {RANKS} ranks, costs as above."
    return f"{text}\n\n{_table(('schedule', *(f'm = {m}' for m in counts)), rows)}"


def own_simulation(name: str) -> tuple[Simulation, int]:
    """A schedule on this project's costs of a network of equal GELU layers, and the bytes that cross links."""
    search = Search(_experiment())
    schedule = generate(name, num_ranks=RANKS, num_microbatches=MICROBATCHES)
    per_stage = LAYERS // schedule.num_stages
    segments = [
        Segment(rank, stage * per_stage, (stage + 1) * per_stage - 1) for stage, rank in enumerate(schedule.placement)
    ]
    layout = Layout.of("1f1b", schedule.num_stages, (ROWS,) * MICROBATCHES)
    stages = [search.model.stage(segment.first_layer, segment.last_layer) for segment in segments]
    seconds = replay_costs(layout, segments, search.cluster, search.model)
    simulation = simulate(schedule, with_bytes(seconds, schedule, stages, (ROWS,)))
    sent = {Kind.SEND_F: "output_bytes", Kind.SEND_B: "grad_input_bytes"}
    crossing = sum(
        getattr(stages[one.send.stage].microbatch(ROWS), sent[one.send.kind]) for one in simulation.replay.transfers
    )
    return simulation, crossing


def _experiment() -> ExperimentConfig:
    device = {"kind": "simulated", "memory_bytes": 2**30, "flop_per_s": {"default": 1e11}, "memory_bytes_per_s": 2e10}
    return ExperimentConfig.model_validate({
        "name": "schedules",
        "model": {"in_features": WIDTH, "hidden_features": (WIDTH,) * (LAYERS - 1), "out_features": WIDTH,
                  "activation": "gelu", "loss": "mse"},
        "data": {"source": "synthetic"},
        "training": {"minibatch_size": ROWS * MICROBATCHES, "steps": 1},
        "optimizer": {"lr": 0.1, "momentum": 0.9},
        "cluster": {"devices": (device,) * RANKS, "links": {"intra_node": {"bytes_per_s": 1e10, "latency_s": 2e-5}}},
    })  # fmt: skip


def _own_bytes() -> str:
    rows = []
    for entry in ENTRIES:
        simulation, crossing = own_simulation(entry.name)
        found = figures(simulation)
        peaks, static = simulation.replay.peak_bytes, simulation.costs.static_bytes
        rows.append([
            entry.name,
            f"{found.makespan_s * 1e3:.2f} ms",
            f"{found.bubble_fraction:.1%}",
            f"{max(peaks):,}",
            *(f"{peak - held:,}" for peak, held in zip(peaks, static, strict=True)),
            f"{crossing:,}",
        ])  # fmt: skip
    header = ("schedule", "step", "idle of step", "peak bytes", *(f"rank {r}" for r in range(RANKS)), "bytes sent")
    text = f"""## In bytes

{LAYERS} GELU layers of {WIDTH} x {WIDTH} in float32 with SGD and momentum, {MICROBATCHES} microbatches of {ROWS}
examples, equal stages, on {RANKS} devices of 100 GFLOP/s and 20 GB/s with links of 10 GB/s and 20 us. *peak bytes*: of
the fullest device, all it holds; *rank r*: its peak above parameters, gradients, optimizer state and what else it holds
throughout: kept tensors, what is on its way, workspace, inputs and targets; *bytes sent*: over links in a step."""
    return f"{text}\n\n{_table(header, rows)}"


def _sources() -> str:
    lines = [textwrap.fill(f"{number}. {text}", 120, subsequent_indent="   ") for number, text in enumerate(SOURCES, 1)]
    return "## Sources\n\n" + "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *("--:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
