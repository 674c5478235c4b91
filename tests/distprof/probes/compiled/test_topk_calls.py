"""Sources in the form in which inductor writes them: what a topk depends on, and where its ids go."""

from __future__ import annotations

import pytest

from distprof.probes.compiled.topk_calls import TopK, topk_calls
from distprof.probes.timing.compiled_routers import output_of_layers

#: Two layers: x (place 0) and the weight of the first router (1), whose choice changes what the second one (2) gets.
SOURCE = """
class Runner:
    def call(self, args):
        primals_1, primals_2, primals_3 = args
        args.clear()
        assert_size_stride(primals_1, (32, 8), (8, 1), 'input')
        buf0 = empty_strided_cpu((32, 4), (4, 1), torch.float32)
        extern_kernels.mm(primals_1, reinterpret_tensor(primals_2, (8, 4), (1, 8), 0), out=buf0)
        buf1 = reinterpret_tensor(buf0, (32, 4), (4, 1), 0); del buf0  # reuse
        cpp_fused__softmax_0(buf1)
        buf2 = torch.ops.aten.topk.default(buf1, 2, -1, True, True)
        buf3 = buf2[0]
        assert_size_stride(buf3, (32, 2), (2, 1), 'torch.ops.aten.topk.default')
        buf4 = buf2[1]
        del buf2
        buf5 = empty_strided_cpu((32, 8), (8, 1), torch.float32)
        cpp_fused_mul_1(primals_1, buf3, buf4, buf5)
        buf6 = empty_strided_cpu((32, 4), (4, 1), torch.float32)
        extern_kernels.mm(buf5, reinterpret_tensor(primals_3, (8, 4), (1, 8), 0), out=buf6)
        buf7 = torch.ops.aten.topk.default(buf6, 2)
        buf8 = buf7[0]
        buf9 = buf7[1]
        buf10 = buf1; del buf1  # reuse
        cpp_fused_mul_1(buf5, buf8, buf9, buf10)
        return (buf10, primals_1, buf3, buf4, buf9, )

def benchmark_compiled_module():
    pass
"""
FIRST, SECOND = TopK(2, 4, frozenset({0, 1}), 3), TopK(2, 4, frozenset({0, 1, 2}), 4)
ROUTERS = ((0, 2, 4, 2), (1, 2, 4, 1))  # the layer that runs first is number 1


def changed(before: str, after: str) -> str:
    assert before in SOURCE
    return SOURCE.replace(before, after)


def test_calls_have_what_they_depend_on_and_the_place_of_their_ids() -> None:
    assert topk_calls(SOURCE) == (FIRST, SECOND)
    assert output_of_layers(SOURCE, ROUTERS) == {0: 4, 1: 3}


@pytest.mark.parametrize(
    "source",
    [
        "#include <torch/csrc/inductor/cpp_wrapper/common.h>\nint main() { torch.ops.aten.topk.default; }",
        changed("del buf2\n", "if buf2: pass\n"),
        changed("def call", "def other"),
        "x = 1",
    ],
    ids=["C++", "a branch", "no call", "no topk"],
)
def test_nothing_is_said_of_another_form(source: str) -> None:
    assert topk_calls(source) == ()
    assert output_of_layers(source, ROUTERS) == {0: -1, 1: -1}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("(buf6, 2)", "(buf6, 2, 0)"),
        ("(buf6, 2)", "(buf6, 2, -1, False)"),
        ("(buf6, 2)", "(buf6, s0)"),
        ("(buf6, 2)", "(buf6, 3)"),
        ("del buf2\n", "buf20 = torch.ops.aten.topk.default(buf1, 2)\n"),
        ("mm(buf5, reinterpret_tensor(primals_3", "mm(buf5, reinterpret_tensor(primals_1"),
    ],
    ids=["of tokens", "the smallest", "unknown", "other k", "groups of experts", "one weight only"],
)
def test_choices_are_not_known_where_layers_and_calls_are_no_pairs(before: str, after: str) -> None:
    assert output_of_layers(changed(before, after), ROUTERS) == {0: -1, 1: -1}


def test_ids_that_are_not_returned_or_are_changed_are_not_read() -> None:
    assert output_of_layers(changed("buf3, buf4, buf9, )", "buf3, buf9, )"), ROUTERS) == {0: 3, 1: -1}
    dropped = changed("buf8 = buf7[0]", "buf8 = buf7[0]\n        torch.ops.mine.drop_.default(buf4)")
    assert output_of_layers(dropped, ROUTERS) == {0: 4, 1: -1}


def test_memory_that_is_used_again_holds_no_ids() -> None:
    again = changed(
        "return (buf10, primals_1, buf3, buf4,", "buf11 = buf4; del buf4\n        return (buf10, buf3, buf11, buf3,"
    )
    assert output_of_layers(again, ROUTERS) == {0: 4, 1: -1}


def test_layers_of_other_numbers_of_experts_are_told_apart() -> None:
    wide = changed("buf6 = empty_strided_cpu((32, 4)", "buf6 = empty_strided_cpu((32, 64)")
    assert output_of_layers(wide, ((0, 2, 64, 2), (1, 2, 4, 1))) == {0: 4, 1: 3}
