"""Recomputation: what a forward keeps of some layers is given back at once, and computed again for the backward.

A pass over the programs of a stage, whatever its operators are. Of a run of layers a..b, a *span*, F gives back each
kept tensor after its last use; the operators that make them again, from what is still kept, run just before the
backward first needs one of them:

    kept, all       x  z0  z1  z2  z3  z4              F  takes z0 .. z4
    spans (1, 2)    x  z0  .   .   z3  z4              F  gives z1 and z2 back, B makes both again before it needs z2
    spans (3, 4)    x  z0  z1  z2  .   .               F  gives z3 and z4 back, R makes both again before B begins

Where the first operator of the backward needs them, they are made by R, an action of its own: it needs no gradient and
can run while one is awaited. Other spans are made within B or I, whose programs then hold those operators too. The same
operators on the same operands give the same bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from partition.graph.block_operators import (
    Accumulate,
    AddInputGrad,
    Drop,
    Gated,
    GatedGrad,
    Normalise,
    NormGrad,
    Rescale,
)
from partition.graph.layers import Gate, Unit
from partition.graph.mixed_operators import AddProduct, Cast, CastWeights, WeightProduct
from partition.graph.program import (
    TARGETS,
    Activate,
    ActivationGrad,
    Affine,
    Category,
    ExampleNorms,
    Give,
    InputGrad,
    Instruction,
    Load,
    LossAndGrad,
    Operator,
    Program,
    StageProgram,
    Take,
    Variable,
    WeightGrad,
    operators,
)

Spans = tuple[tuple[int, int], ...]
"""First and last layer, inclusive, of each run of layers that is computed again; no two of a stage are adjacent."""

_WRITTEN: Mapping[type, tuple[str, ...]] = {
    Load: ("into",),
    Affine: ("z",),
    Activate: ("h",),
    ActivationGrad: ("grad",),
    InputGrad: ("grad_x",),
    WeightGrad: (),
    ExampleNorms: ("into",),
    LossAndGrad: ("grad_o", "loss"),
    Normalise: ("n",),
    NormGrad: ("standardised", "grad"),
    Rescale: ("n",),
    Drop: ("out",),
    Gated: ("h",),
    GatedGrad: ("a", "grad", "grad_a"),
    AddInputGrad: ("grad_x",),
    Accumulate: ("into",),
    Cast: ("into",),
    CastWeights: ("weights",),
    WeightProduct: ("product",),
    AddProduct: (),
}
"""Fields that an operator writes; it reads the others."""
_CHANGED: Mapping[type, tuple[str, ...]] = {Accumulate: ("into",), Rescale: ("n",)}
"""Fields that an operator of a forward writes and reads besides."""


class _Span(NamedTuple):
    """Kept variables of a run of layers, and the program that makes them again."""

    names: tuple[str, ...]
    made: Program


def recomputed(program: StageProgram, spans: Spans) -> StageProgram:
    """The programs of the stage with what it keeps of these layers computed again; prediction and W are the same."""
    if not spans:  # of whatever operators: those of second order are not known here
        return program
    dropped = dropped_by_span(program, spans)
    names = {name for of_span in dropped.values() for name in of_span}
    if not names:
        return program
    made = [_Span(tuple(of), span_program(program, names, of)) for of in dropped.values()]
    at_once = [span for span in made if _place_of(program.backward, span) == 0]
    within = [span for span in made if span not in at_once]
    is_output_dropped = program.is_output_kept and program.output.name in names
    forward, output = _without(program.forward, names - {program.output.name}), program.output
    if is_output_dropped:
        # Under way it has a name of its own: R may take the variable anew before the message has gone.
        output = output._replace(name=f"{output.name}_sent", category=Category.BOUNDARY)
        forward = tuple(_renamed(instruction, {program.output.name: output}) for instruction in forward)
    return replace(
        program,
        forward=forward,
        backward=_woven(program.backward, within),
        input_grad=_woven(program.input_grad, within),
        recompute=tuple(instruction for span in at_once for instruction in span.made),
        output=output,
        is_output_kept=program.is_output_kept and not is_output_dropped,
    )


def kept_variables(program: StageProgram) -> dict[str, Variable]:
    """What stands between F and B of a microbatch besides the stage's input and what is only sent, by name."""
    alive: dict[str, Variable] = {}
    for instruction in program.forward:
        match instruction:
            case Take(variable):
                alive[variable.name] = variable
            case Give(variable):
                del alive[variable.name]
    is_sent = not (program.is_last or program.is_output_kept)
    return {
        name: variable
        for name, variable in alive.items()
        if name != program.input.name and not (is_sent and name == program.output.name)
    }


def layers_of_variables(program: StageProgram) -> dict[str, int]:
    """The unit whose forward first writes each variable; the gradient of the loss belongs to the last one."""
    units, found = units_of_parts(program.layers), dict[str, int]()
    for operator in operators(program.forward):
        for variable in written(operator):
            found.setdefault(variable.name, unit_of(operator, program, units))
    return found


def units_of_parts(units: Iterable[Unit]) -> dict[object, int]:
    """The index of the unit that each part belongs to."""
    found: dict[object, int] = {}
    for unit in units:
        for part in unit.parts:
            inner = (part.gate, part.up) if isinstance(part, Gate) else ()
            found |= dict.fromkeys((part, *inner), unit.index)
    return found


def unit_of(operator: Operator, program: StageProgram, units: Mapping[object, int]) -> int:
    """The unit that an operator belongs to: inputs are loaded by the first, the loss is the last one's.

    A sum is taken to be the last one's too: it writes what another operator has made.
    """
    part = next((part for part in operator if part in units), None)
    if part is not None:
        return units[part]
    is_input = isinstance(operator, Load) and operator.into.name != TARGETS
    return program.layers[0 if is_input else -1].index


def dropped_by_span(program: StageProgram, spans: Spans) -> dict[tuple[int, int], list[str]]:
    """The kept variables of the layers of each span, last span first; spans of layers that keep nothing are left out.

    >>> dropped_by_span(program, ((1, 2),))
    {(1, 2): ["z1", "z2"]}
    """
    owners, kept = layers_of_variables(program), kept_variables(program)
    found = {
        (first, last): [name for name in kept if first <= owners[name] <= last] for first, last in sorted(spans)[::-1]
    }
    return {span: names for span, names in found.items() if names}


def written(operator: Operator) -> list[Variable]:
    """The variables that an operator writes."""
    return [getattr(operator, field) for field in _WRITTEN[type(operator)]]


def read(operator: Operator) -> list[Variable]:
    """The variables that an operator reads, or works in."""
    kind, fields = type(operator), zip(operator._fields, operator, strict=True)
    unread = set(_WRITTEN[kind]) - set(_CHANGED.get(kind, ()))
    return [value for name, value in fields if isinstance(value, Variable) and name not in unread]


def touched(instruction: Instruction) -> list[Variable]:
    """The variables that an instruction names."""
    return [value for value in instruction if isinstance(value, Variable)]


def last_uses(program: Sequence[Instruction]) -> dict[str, int]:
    """Where each variable is named last."""
    return {variable.name: place for place, instruction in enumerate(program) for variable in touched(instruction)}


def span_program(program: StageProgram, dropped: Iterable[str], wanted: Sequence[str]) -> Program:
    """The operators of the forward that make the wanted variables again, from what is kept, with their buffers."""
    available = (kept_variables(program).keys() | {program.input.name}) - set(dropped)
    needed, chosen, later = set(wanted), list[Operator](), set[str]()
    for operator in reversed(list(operators(program.forward))):
        if not needed:
            break
        outputs, inputs = [one.name for one in written(operator)], [one.name for one in read(operator)]
        if needed.intersection(outputs):
            assert not available.intersection(outputs), f"{operator} would make what is kept"
            assert not later & available.intersection(inputs), f"{operator} needs what is written over later"
            chosen.append(operator)
            needed.difference_update(outputs)
            needed.update(set(inputs) - available)
        later.update(outputs)
    made = tuple(_with_buffers(chosen[::-1], _taken(program.forward) - available, set(wanted)))
    names = _passing_names(made, wanted)
    return tuple(_renamed(instruction, names) for instruction in made)


def _passing_names(made: Program, wanted: Collection[str]) -> dict[str, Variable]:
    """Names of their own for what is gone again: the backward may hold variables of the same. Loads go by name."""
    loaded = {one.into.name for one in made if isinstance(one, Load)}
    taken = (one.variable for one in made if isinstance(one, Take))
    return {one.name: one._replace(name=f"{one.name}_again") for one in taken if one.name not in loaded.union(wanted)}


def _taken(program: Program) -> set[str]:
    return {instruction.variable.name for instruction in program if isinstance(instruction, Take)}


def _with_buffers(chosen: Sequence[Operator], own: set[str], wanted: set[str]) -> Iterator[Instruction]:
    """Take each variable before its first use, give those that are not wanted back after their last."""
    last_use = last_uses(chosen)
    taken: set[str] = set()
    for place, operator in enumerate(chosen):
        for variable in touched(operator):
            if variable.name in own - taken:
                taken.add(variable.name)
                yield Take(variable)
        yield operator
        for variable in dict.fromkeys(touched(operator)):
            if variable.name in own - wanted and last_use[variable.name] == place:
                yield Give(variable)


def _without(forward: Program, dropped: set[str]) -> Program:
    """The forward with these variables given back after their last use."""
    last_use = last_uses(forward)
    found: list[Instruction] = []
    for place, instruction in enumerate(forward):
        found.append(instruction)
        for variable in dict.fromkeys(touched(instruction)):
            if variable.name in dropped and last_use[variable.name] == place:
                found.append(Give(variable))
    return tuple(found)


def _woven(backward: Program, spans: Sequence[_Span]) -> Program:
    """A backward with what makes the variables of each span where it is needed."""
    inserted: dict[int, list[Instruction]] = {}
    for span in spans:
        inserted.setdefault(_place_of(backward, span), []).extend(span.made)
    woven = [one for place, instruction in enumerate(backward) for one in (*inserted.get(place, ()), instruction)]
    return (*woven, *inserted.get(len(backward), ()))


def _place_of(program: Program, span: _Span) -> int:
    """Before what first needs one of a span's variables, or changes what they are made from; else the end.

    What W alone needs, I does not: it makes it in time, and leaves it to W.
    """
    made_from = {variable.name for one in span.made for variable in touched(one)} - _taken(span.made)
    for place, instruction in enumerate(program):
        is_used = any(variable.name in span.names for variable in touched(instruction))
        if is_used or made_from.intersection(_changed(instruction)):
            return before_takes(program, place)
    return len(program)


def before_takes(program: Program, place: int) -> int:
    """The place before the buffers that are taken for an instruction."""
    while place > 0 and isinstance(program[place - 1], Take):
        place -= 1
    return place


def _changed(instruction: Instruction) -> set[str]:
    """The variables that are not afterwards what they were before."""
    if isinstance(instruction, Take | Give):
        return {instruction.variable.name} if isinstance(instruction, Give) else set()
    return {variable.name for variable in written(instruction)}


def _renamed(instruction: Instruction, names: Mapping[str, Variable]) -> Instruction:
    values: list[Any] = [
        names.get(value.name, value) if isinstance(value, Variable) else value for value in instruction
    ]
    renamed: Instruction = type(instruction)(*values)
    return renamed
