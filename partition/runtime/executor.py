"""The executor: a small interpreter that runs one rank's row of actions.

One rule decides when buffers come and go: the action list. A receive takes its buffer when it is posted; what was
sent is given back at the next send of the same stage and direction, or at the optimizer step. An action that has to
wait for a message yields, so one process can step several executors in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from partition.errors import DeviceMemoryError, RunError
from partition.graph import Variable
from partition.runtime.channel import Channels, Delivery, MessageKey
from partition.runtime.clock import Clock
from partition.runtime.stage import Feed, Frame, Stage
from partition.schedule import Action, Kind


@dataclass(frozen=True, kw_only=True)
class Step:
    """One minibatch: how it is cut, where its rows come from, and what its actions are predicted to take."""

    sizes: tuple[int, ...]
    """Examples of each microbatch."""
    feed: Feed
    seconds: Callable[[Action], float]

    @property
    def weight(self) -> float:
        """1/N, the weight of every example."""
        return 1.0 / sum(self.sizes)


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A message under way and the buffer that it reads from."""

    delivery: Delivery
    frame: Frame
    variable: Variable | None
    """To be given back when the message is complete; None where the tensor is kept anyway."""


class Executor:
    """Runs the row of one rank, step after step."""

    def __init__(
        self, *, rank: int, stages: Mapping[int, Stage], channels: Channels, clock: Clock, update: Callable[[], None]
    ) -> None:
        self.rank = rank
        self.stages = stages
        self.channels = channels
        self.clock = clock
        self.update = update
        self.position = 0
        self._frames: dict[tuple[int, int], Frame] = {}
        self._received: dict[Action, Delivery] = {}
        self._sent: dict[tuple[int, Kind], _Sent] = {}
        self._outputs: dict[tuple[int, int], Tensor] = {}

    def run(self, row: Sequence[Action], step: Step) -> Iterator[None]:
        """Run the row on one minibatch; yields while an action waits for a message."""
        self.step = step
        try:
            for self.position, action in enumerate(row):
                try:
                    yield from _METHODS[action.kind](self, action)
                except DeviceMemoryError as error:
                    error.stage, error.action = action.stage, str(action)
                    raise
        finally:
            # A forward whose backward never came: edge and node would hold each other, and the stage, for ever.
            for frame in self._frames.values():
                frame.edge = None
            self._frames.clear()

    # Compute

    def _forward(self, action: Action) -> Iterator[None]:
        yield from self._arrival(Kind.RECV_F, action)
        stage, frame = self.stages[action.stage], self._frame(action)
        output = stage.forward(frame)
        if not stage.program.is_last:
            self._outputs[action.stage, action.microbatch] = output
        self.clock.work(self.step.seconds(action))

    def _backward(self, action: Action) -> Iterator[None]:
        yield from self._arrival(Kind.RECV_B, action)
        stage, frame = self.stages[action.stage], self._frame(action)
        stage.backward(frame, is_split=action.kind is Kind.I)
        self.clock.work(self.step.seconds(action))

    def _weight_grad(self, action: Action) -> Iterator[None]:
        self.stages[action.stage].weight_grad(self._frame(action))
        self.clock.work(self.step.seconds(action))
        return iter(())

    def _frame(self, action: Action) -> Frame:
        key = (action.stage, action.microbatch)
        if key not in self._frames:
            self._frames[key] = Frame(
                microbatch=action.microbatch,
                rows=self.step.sizes[action.microbatch],
                weight=self.step.weight,
                is_first=action.microbatch == 0,
                feed=self.step.feed,
            )
        return self._frames[key]

    # Messages

    def _receive(self, action: Action) -> Iterator[None]:
        stage, frame = self.stages[action.stage], self._frame(action)
        is_forward = action.kind is Kind.RECV_F
        variable = stage.program.input if is_forward else stage.program.grad_output
        assert variable is not None, "a validated schedule sends nothing to where nothing is received"
        source = action.stage - 1 if is_forward else action.stage + 1
        key = MessageKey(source, action.stage, action.microbatch)
        delivery = self.channels.receive(key, stage.receive(variable, frame), self.clock.now_s)
        self._received[action] = delivery
        return iter(())

    def _arrival(self, kind: Kind, action: Action) -> Iterator[None]:
        """Wait for the message that an action consumes, where it consumes one."""
        delivery = self._received.pop(Action(action.stage, kind, action.microbatch), None)
        if delivery is not None:
            yield from self._wait(delivery)

    def _send(self, action: Action) -> Iterator[None]:
        stage_index, kind, microbatch = action
        yield from self._settle(stage_index, kind)
        stage, frame = self.stages[stage_index], self._frame(action)
        if kind is Kind.SEND_F:
            destination, variable = stage_index + 1, stage.program.output
            tensor = self._outputs.pop((stage_index, microbatch))
            given = None if stage.program.is_output_kept else variable
        else:
            destination, given = stage_index - 1, stage.program.grad_input
            assert given is not None, "the first stage sends no gradient"
            tensor = frame.tensors[given.name]
        key = MessageKey(stage_index, destination, microbatch)
        delivery = self.channels.send(key, tensor, self.clock.now_s)
        self._sent[stage_index, kind] = _Sent(delivery=delivery, frame=frame, variable=given)

    def _settle(self, stage_index: int, kind: Kind) -> Iterator[None]:
        """Wait for the previous message of a stage and direction, and give its buffer back."""
        sent = self._sent.pop((stage_index, kind), None)
        if sent is None:
            return
        yield from self._wait(sent.delivery)
        if sent.variable is not None:
            self.stages[stage_index].give_back(sent.variable, sent.frame)

    def _wait(self, delivery: Delivery) -> Iterator[None]:
        while not delivery.is_complete:
            yield
        self.clock.wait_until(delivery.completed_s)

    # The optimizer step

    def _step(self, action: Action) -> Iterator[None]:
        for stage_index, kind in list(self._sent):
            yield from self._settle(stage_index, kind)
        self.update()
        self.clock.work(self.step.seconds(action))


# Not bound to an executor: one that held its own methods would live, with its stages, until the cyclic collector runs.
_METHODS: dict[Kind, Callable[[Executor, Action], Iterable[None]]] = {
    Kind.F: Executor._forward,
    Kind.B: Executor._backward,
    Kind.I: Executor._backward,
    Kind.W: Executor._weight_grad,
    Kind.SEND_F: Executor._send,
    Kind.SEND_B: Executor._send,
    Kind.RECV_F: Executor._receive,
    Kind.RECV_B: Executor._receive,
    Kind.STEP: Executor._step,
}


def run_in_turn(executors: Sequence[Executor], rows: Sequence[Sequence[Action]], step: Step) -> None:
    """Run all ranks of one process: each goes on until it has to wait for another.

    Raises RunError where all wait for one another, which a validated schedule never does.
    """
    running = {executor: executor.run(row, step) for executor, row in zip(executors, rows, strict=True)}
    while running:
        before = [executor.position for executor in running]
        ended = [executor for executor, actions in running.items() if next(actions, True)]
        for executor in ended:
            del running[executor]
        if not ended and before == [executor.position for executor in running]:
            where = "; ".join(f"rank {one.rank}: {rows[one.rank][one.position]}" for one in running)
            raise RunError(f"the ranks wait for one another ({where}); check the schedule with `partition schedule`")
