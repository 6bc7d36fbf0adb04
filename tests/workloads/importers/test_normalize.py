"""Modules that contradict themselves are refused; calls are inlined with names of their own."""

import pytest

from workloads.errors import WorkloadError
from workloads.hlo.module import Module
from workloads.hlo.schema import message_class
from workloads.importers.normalization import normalized

F32 = 11


def module(**computations):
    """A module of computations `name=[(id, opcode, operands, called)]`; the last is the entry.

    The last instruction of each is its root; ids of computations count from 1.
    """
    proto = message_class("Module")(name="m")
    for number, (name, instructions) in enumerate(computations.items(), start=1):
        computation = proto.computations.add(name=name, id=number)
        for i, opcode, operands, *called in instructions:
            instruction = computation.instructions.add(
                id=i, name=f"{opcode}.{i}", opcode=opcode, operand_ids=operands
            )
            instruction.called_computation_ids.extend(called)
            instruction.shape.element_type = F32
            instruction.shape.dimensions.append(1024)
        computation.root_id = i
        proto.entry_computation_id = number
    return proto


def names(proto):
    found = Module(normalized(proto.SerializeToString())[0])
    return [i.name for i in found.sequence(found.entry_id)]


PARAMETER = (1, "parameter", [])


def test_program_order_is_kept_where_it_is_topological():
    proto = module(e=[(4, "add", [2, 3]), (3, "sine", [1]), (2, "cosine", [1]), PARAMETER])
    proto.computations[0].root_id = 4
    assert names(proto) == ["parameter.1", "cosine.2", "sine.3", "add.4"]


def test_inlined_calls_have_names_of_their_own():
    callee = [PARAMETER, (2, "sine", [1])]
    proto = module(f=callee, e=[PARAMETER, (2, "call", [1], 1), (3, "call", [2], 1)])
    assert names(proto) == ["parameter.1", "sine.2", "sine.2.1"]


def test_ids_may_repeat_between_computations_but_not_within_one():
    proto = module(e=[PARAMETER, (1, "sine", [1])])
    with pytest.raises(WorkloadError, match="two instructions of one id"):
        normalized(proto.SerializeToString())


BAD = {
    "circle": (module(e=[PARAMETER, (2, "add", [1, 3]), (3, "add", [2, 1])]), "form a circle"),
    "lost operand": (module(e=[PARAMETER, (2, "sine", [9])]), "sine.2 has an operand that"),
    "lost callee": (module(e=[PARAMETER, (2, "call", [1], 9)]), "id 9 is called"),
    "recursion": (
        module(f=[PARAMETER, (2, "call", [1], 1)], e=[PARAMETER, (2, "call", [1], 1)]),
        "computation f calls itself",
    ),
    "half a loop": (module(e=[PARAMETER, (2, "while", [1])]), "while while.2 needs one operand"),
    "argument": (
        module(f=[PARAMETER, (2, "sine", [1])], e=[PARAMETER, (2, "call", [], 1)]),
        "lacks argument 0",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_contradictions_are_named(what):
    proto, message = BAD[what]
    with pytest.raises(WorkloadError, match=message):
        normalized(proto.SerializeToString())


def test_a_schedule_must_be_one_of_the_computation():
    proto = module(e=[PARAMETER, (2, "sine", [1]), (3, "cosine", [2])])
    entry = proto.schedule.sequences.add(key=1)
    entry.value.instruction_ids[:] = [1, 2, 3]
    assert normalized(proto.SerializeToString())[1]
    entry.value.instruction_ids[:] = [1, 3, 2]
    with pytest.raises(WorkloadError, match="cosine.3 is scheduled before"):
        normalized(proto.SerializeToString())
    entry.value.instruction_ids[:] = [1, 2]
    with pytest.raises(WorkloadError, match="schedule of computation e"):
        normalized(proto.SerializeToString())


def test_calls_that_double_at_each_level_end_at_a_limit():
    levels = {f"f{n}": [PARAMETER, (2, "call", [1], n), (3, "call", [2], n)] for n in range(1, 40)}
    proto = module(f0=[PARAMETER, (2, "sine", [1])], **levels)
    with pytest.raises(WorkloadError, match="more than 200000 instructions"):
        normalized(proto.SerializeToString())


def test_no_module_has_a_missing_entry():
    proto = module(e=[PARAMETER])
    proto.entry_computation_id = 7
    with pytest.raises(WorkloadError, match="no entry computation"):
        normalized(proto.SerializeToString())
