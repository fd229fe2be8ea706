"""The executor: a small interpreter that runs one rank's row of actions.

One rule decides when buffers come and go: the action list. A receive takes its buffer when it is posted; what was
sent is given back at the next send of the same stage and direction, or at the optimizer step. Between two stages of
one rank there is no message: the later action copies the earlier one's result into a buffer of its own as it begins.
An action that has to wait for another rank yields, so one process can step several executors (`turns.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from partition.errors import DeviceMemoryError, PeerError
from partition.graph import StageProgram, Variable
from partition.runtime.channel import Channels, Delivery, MessageKey
from partition.runtime.clock import Clock
from partition.runtime.stage import Frame, Stage
from partition.runtime.step import Step
from partition.runtime.tally import Tally
from partition.runtime.update import Update, clip_scale
from partition.runtime.world import World
from partition.schedule import Action, Kind


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A message under way and the buffer that it reads from."""

    delivery: Delivery
    frame: Frame
    variable: Variable | None
    """To be given back when the message is complete; None where the tensor is kept anyway."""


Observer = Callable[[Action, float, float], None]
"""Is told of every action with the seconds that its rank was busy with it and those that it waited in it.

Of a message that its rank takes in itself while it waits for it, the receive is told once more."""


class Executor:
    """Runs the row of one rank."""

    def __init__(
        self,
        *,
        rank: int,
        stages: Mapping[int, Stage],
        updates: Mapping[int, Update],
        channels: Channels,
        world: World,
        clock: Clock,
        tally: Tally,
        norm_limit: float | None,
        observe: Observer | None = None,
    ) -> None:
        self.rank = rank
        self.stages = stages
        self.updates = updates
        self.channels = channels
        self.world = world
        self.clock = clock
        self.tally = tally
        self.norm_limit = norm_limit
        self.observe = observe
        self.position = 0
        self._waited_s = 0.0
        self._scale: float | None = None
        self._frames: dict[tuple[int, int], Frame] = {}
        self._received: dict[Action, Delivery] = {}
        self._sent: dict[tuple[int, Kind], _Sent] = {}
        self._outputs: dict[tuple[int, int], Tensor] = {}
        self._sums: dict[int, Delivery] = {}

    def run(self, row: Sequence[Action], step: Step) -> Iterator[None]:
        """Run the row on one minibatch; yields while an action waits for another rank."""
        self.step = step
        try:
            for self.position, action in enumerate(row):
                try:
                    yield from self._observed(action) if self.observe else _METHODS[action.kind](self, action)
                except DeviceMemoryError as error:
                    error.stage, error.action = action.stage, str(action)
                    raise
                except PeerError as error:
                    error.rank, error.action = self.rank, str(action)
                    raise
            yield from self._settle_all()
        finally:
            # A forward whose backward never came: edge and node would hold each other, and the stage, for ever.
            for frame in self._frames.values():
                frame.edge = None
            self._frames.clear()

    def _observed(self, action: Action) -> Iterator[None]:
        """Run one action and tell what it took of this rank, in seconds of the wall."""
        assert self.observe is not None
        start_s, self._waited_s = time.perf_counter(), 0.0
        yield from _METHODS[action.kind](self, action)
        self.observe(action, time.perf_counter() - start_s - self._waited_s, self._waited_s)

    # Compute

    def _forward(self, action: Action) -> Iterator[None]:
        yield from self._arrival(Kind.RECV_F, action)
        stage, frame = self.stages[action.stage], self._frame(action)
        examine = self.step.examine and partial(self.step.examine, self.rank)
        output = stage.forward(frame) if self.step.sink is None else stage.predict(frame, examine)
        if not stage.program.is_last:
            self._outputs[action.stage, action.microbatch] = output
        elif self.step.sink is not None:
            self.step.sink(action.microbatch, output)
            stage.give_back(stage.program.prediction, frame)
        self.clock.work(self.step.seconds(action))

    def _backward(self, action: Action) -> Iterator[None]:
        yield from self._arrival(Kind.RECV_B, action)
        stage, frame = self.stages[action.stage], self._frame(action)
        sent = self._sent.get((action.stage, Kind.SEND_F))
        if sent is not None and sent.variable is None and sent.frame is frame:
            # Its answer is here, so it has arrived; still under way in name, it would outlive what B gives back.
            yield from self._settle(action.stage, Kind.SEND_F)
        del sent
        stage.backward(frame, is_split=action.kind is Kind.I)
        self.clock.work(self.step.seconds(action))

    def _weight_grad(self, action: Action) -> Iterator[None]:
        self.stages[action.stage].weight_grad(self._frame(action))
        self.clock.work(self.step.seconds(action))
        return iter(())

    def _recompute(self, action: Action) -> Iterator[None]:
        self.stages[action.stage].recompute(self._frame(action))
        self.clock.work(self.step.seconds(action))
        return iter(())

    def _frame(self, action: Action) -> Frame:
        return self._frame_of(action.stage, action.microbatch)

    def _frame_of(self, stage: int, microbatch: int) -> Frame:
        key = (stage, microbatch)
        if key not in self._frames:
            self._frames[key] = self.step.frame(microbatch)
        return self._frames[key]

    # Messages

    def _receive(self, action: Action) -> Iterator[None]:
        stage, frame = self.stages[action.stage], self._frame(action)
        variable = _received_by(stage.program, action.kind)
        key = MessageKey(_source(action), action.stage, action.microbatch)
        self.clock.work(self.step.seconds(action))
        delivery = self.channels.receive(key, stage.receive(variable, frame), self.clock.now_s)
        self._received[action] = delivery
        return iter(())

    def _arrival(self, kind: Kind, action: Action) -> Iterator[None]:
        """Wait for the message that an action consumes, or take over from a stage of this rank."""
        incoming = Action(action.stage, kind, action.microbatch)
        delivery = self._received.pop(incoming, None)
        if delivery is not None:
            yield from self._wait(delivery)
            if self.observe is not None:
                self.observe(incoming, delivery.work_s, 0.0)
        elif _source(incoming) in self.stages:
            self._take_over(incoming)

    def _take_over(self, incoming: Action) -> None:
        """Copy what another stage of this rank has left for this one."""
        source = _source(incoming)
        stage, frame = self.stages[incoming.stage], self._frame(incoming)
        send = Kind.SEND_F if incoming.kind is Kind.RECV_F else Kind.SEND_B
        tensor, given = self._result(source, send, incoming.microbatch)
        stage.receive(_received_by(stage.program, incoming.kind), frame).copy_(tensor)
        if given is not None:
            del tensor
            self.stages[source].give_back(given, self._frame_of(source, incoming.microbatch))

    def _result(self, stage_index: int, kind: Kind, microbatch: int) -> tuple[Tensor, Variable | None]:
        """What a stage hands on, and the variable to be given back afterwards: None where it is kept anyway."""
        program = self.stages[stage_index].program
        if kind is Kind.SEND_F:
            output = self._outputs.pop((stage_index, microbatch))
            if self.step.sink is not None:
                return output, program.prediction
            return output, None if program.is_output_kept else program.output
        assert program.grad_input is not None, "the first stage sends no gradient"
        return self._frame_of(stage_index, microbatch).tensors[program.grad_input.name], program.grad_input

    def _send(self, action: Action) -> Iterator[None]:
        stage_index, kind, microbatch = action
        yield from self._settle(stage_index, kind)
        tensor, given = self._result(stage_index, kind, microbatch)
        destination = stage_index + 1 if kind is Kind.SEND_F else stage_index - 1
        self.clock.work(self.step.seconds(action))
        delivery = self.channels.send(MessageKey(stage_index, destination, microbatch), tensor, self.clock.now_s)
        self._sent[stage_index, kind] = _Sent(delivery=delivery, frame=self._frame(action), variable=given)

    def _settle(self, stage_index: int, kind: Kind) -> Iterator[None]:
        """Wait for the previous message of a stage and direction, and give its buffer back."""
        sent = self._sent.pop((stage_index, kind), None)
        if sent is None:
            return
        yield from self._wait(sent.delivery)
        if sent.variable is not None:
            self.stages[stage_index].give_back(sent.variable, sent.frame)

    def _settle_all(self) -> Iterator[None]:
        for stage_index, kind in list(self._sent):
            yield from self._settle(stage_index, kind)

    def _wait(self, delivery: Delivery) -> Iterator[None]:
        start_s = time.perf_counter()
        while not delivery.wait():
            yield
        self._waited_s += time.perf_counter() - start_s
        self.clock.wait_until(delivery.completed_s)

    # The optimizer step

    def _reduce(self, action: Action) -> Iterator[None]:
        """Begin to add the stage's gradients over replicas; one that had no examples adds nothing."""
        gradients = self.updates[action.stage].gradients
        if not self.step.sizes:
            for gradient in gradients:
                gradient.zero_()
        seconds = self.step.seconds(action)
        self._sums[action.stage] = self.world.sum_gradients(
            self.rank, action.stage, gradients, self.clock.now_s, seconds
        )
        return iter(())

    def _step(self, action: Action) -> Iterator[None]:
        yield from self._settle_all()
        update = self.updates[action.stage]
        if self.norm_limit is None:
            yield from self._measure(action.stage)
        elif self._scale is None:
            yield from self._agree_on_norm(self.norm_limit)
        if update.is_finite:  # else the run ends, and what went wrong is looked for in the layers as they were
            update.apply(1.0 if self._scale is None else self._scale)
        self.clock.work(self.step.seconds(action))

    def _measure(self, stage_index: int) -> Iterator[None]:
        """Take the norms of a stage once its gradients are complete."""
        if stage_index in self._sums:
            yield from self._wait(self._sums.pop(stage_index))
        if self.step.meanwhile:
            self.step.meanwhile()
        self.updates[stage_index].measure()

    def _agree_on_norm(self, norm_limit: float) -> Iterator[None]:
        """Before any stage is updated: the norm of all gradients of all ranks."""
        for stage_index in self.stages:
            yield from self._measure(stage_index)
        shared = self.world.share(self.rank, self.tally.pack(self.rank, self.updates), self.clock.now_s)
        yield from self._wait(shared)
        self._scale = clip_scale(self.tally.norm(shared.values), norm_limit)


def _source(receive: Action) -> int:
    """The stage that a receive takes from."""
    return receive.stage - 1 if receive.kind is Kind.RECV_F else receive.stage + 1


def _received_by(program: StageProgram, kind: Kind) -> Variable:
    variable = program.input if kind is Kind.RECV_F else program.grad_output
    assert variable is not None, "a validated schedule sends nothing to where nothing is received"
    return variable


# Not bound to an executor: one that held its own methods would live, with its stages, until the cyclic collector runs.
_METHODS: dict[Kind, Callable[[Executor, Action], Iterable[None]]] = {
    Kind.F: Executor._forward,
    Kind.B: Executor._backward,
    Kind.I: Executor._backward,
    Kind.W: Executor._weight_grad,
    Kind.R: Executor._recompute,
    Kind.SEND_F: Executor._send,
    Kind.SEND_B: Executor._send,
    Kind.RECV_F: Executor._receive,
    Kind.RECV_B: Executor._receive,
    Kind.REDUCE_GRAD: Executor._reduce,
    Kind.STEP: Executor._step,
}
