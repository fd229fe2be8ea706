"""Messages between devices of one process, and the clock of their links."""

from __future__ import annotations

import torch

from partition.runtime.channel import LocalChannels, MessageKey


def link(seconds: float = 1.0) -> LocalChannels:
    """Three stages on three ranks; every message takes `seconds`."""
    return LocalChannels((0, 1, 2), lambda _: seconds)


def key(microbatch: int, source: int = 0, destination: int = 1) -> MessageKey:
    return MessageKey(source, destination, microbatch)


def filled(value: float) -> torch.Tensor:
    return torch.full((2,), value)


def test_nothing_moves_before_both_sides_have_posted() -> None:
    into, channels = filled(0), link()
    sent = channels.send(key(0), filled(1), 0.0)
    assert not sent.wait()
    received = channels.receive(key(0), into, 0.0)
    assert sent.wait()
    assert received.wait()
    assert torch.equal(into, filled(1))


def test_the_receiver_may_post_first() -> None:
    into, channels = filled(0), link()
    assert not channels.receive(key(0), into, 0.0).wait()
    channels.send(key(0), filled(1), 0.0)
    assert torch.equal(into, filled(1))


def test_a_message_starts_when_the_later_side_has_posted() -> None:
    late_receiver, late_sender = link(), link()
    late_receiver.send(key(0), filled(1), 2.0)
    late_sender.send(key(0), filled(1), 5.0)
    assert late_receiver.receive(key(0), filled(0), 5.0).completed_s == 6.0
    assert late_sender.receive(key(0), filled(0), 2.0).completed_s == 6.0


def test_a_link_carries_one_message_at_a_time() -> None:
    channels = link()
    for microbatch in (0, 1):
        channels.send(key(microbatch), filled(1), 0.0)
    done = [channels.receive(key(microbatch), filled(0), 0.0).completed_s for microbatch in (0, 1)]
    assert done == [1.0, 2.0]


def test_a_message_waits_for_those_sent_before_it() -> None:
    """The second is received first, and stays behind the first on their link."""
    channels = link()
    for microbatch in (0, 1):
        channels.send(key(microbatch), filled(microbatch), 0.0)
    second = channels.receive(key(1), filled(9), 0.0)
    assert not second.wait()
    channels.receive(key(0), filled(9), 4.0)
    assert second.completed_s == 6.0


def test_links_and_directions_do_not_wait_for_one_another() -> None:
    channels = link()
    for source, destination in ((0, 1), (1, 0), (1, 2)):
        channels.send(key(0, source, destination), filled(1), 0.0)
        assert channels.receive(key(0, source, destination), filled(0), 0.0).completed_s == 1.0


def test_a_message_takes_what_its_link_takes_for_it() -> None:
    channels = LocalChannels((0, 1), lambda key: 1.0 + key.microbatch)
    channels.send(key(3), filled(1), 0.0)
    assert channels.receive(key(3), filled(0), 0.0).completed_s == 4.0


def test_the_sent_tensor_is_let_go_when_it_has_arrived() -> None:
    """A reference here would keep bytes that the ledger counts as free."""
    channels, tensor = link(), filled(1)
    sent = channels.send(key(0), tensor, 0.0)
    assert any(value is tensor for value in vars(sent).values())
    channels.receive(key(0), filled(0), 0.0)
    assert all(value is not tensor for value in vars(sent).values())
