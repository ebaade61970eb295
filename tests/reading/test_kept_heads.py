"""What is kept of heads: exact, or in eight bits, and never taken for what it can't be."""

from __future__ import annotations

import math

import psutil
import pytest
import torch

from at2_rag.reading.kept_heads import KeptHeads


def vectors(heads: int, tokens: int, *, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(heads + tokens)
    return scale * torch.randn(heads, tokens, 8, generator=generator)


def scales_of(kept: KeptHeads) -> torch.Tensor:
    assert kept.scales is not None
    return kept.scales


def same(one: KeptHeads, other: KeptHeads) -> bool:
    return torch.equal(one.levels, other.levels) and torch.equal(scales_of(one), scales_of(other))


def test_a_vector_by_hand() -> None:
    kept = KeptHeads.rounded(torch.tensor([[[0.0, 127.0, -63.4, 1.6]]]) / 64)
    assert kept.levels.flatten().tolist() == [0, 127, -63, 2]
    assert scales_of(kept).item() == 1 / 64
    assert kept.restored().flatten().tolist() == [0, 127 / 64, -63 / 64, 2 / 64]
    assert (kept.tokens, kept.nbytes) == (1, 4 + 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.02, 1.0, 1000.0])
def test_no_number_moves_by_more_than_half_a_step(scale: float, dtype: torch.dtype) -> None:
    was = vectors(3, 70, scale=scale).to(dtype)
    kept = KeptHeads.rounded(was)
    step = scales_of(kept).float()[..., None]
    assert ((kept.restored() - was.float()).abs() <= 0.5001 * step).all()
    assert (step <= was.float().abs().amax(-1, keepdim=True) / 127 * 1.001).all()


def test_one_large_vector_coarsens_no_other() -> None:
    was = vectors(2, 5)
    was[0, 3] *= 1000
    before, after = KeptHeads.rounded(vectors(2, 5)).restored(), KeptHeads.rounded(was).restored()
    after[0, 3] = before[0, 3]
    assert torch.equal(before, after)


def test_what_is_rounded_stays_as_it_is() -> None:
    kept = KeptHeads.rounded(vectors(3, 70))
    assert same(KeptHeads.rounded(kept.restored()), kept)


def test_vectors_of_zeros_and_vectors_that_overflowed() -> None:
    zeros = torch.zeros(2, 3, 4)
    assert torch.equal(KeptHeads.rounded(zeros).restored(), zeros)
    assert KeptHeads.rounded(zeros).is_plausible
    for number in (math.inf, -math.inf, math.nan, 1e30):
        broken = torch.ones(1, 2, 4)
        broken[0, 1, 2] = number
        kept = KeptHeads.rounded(broken)
        assert not kept.is_plausible
        assert not kept.restored()[0, 1].isfinite().all(), "not read as if it were a number"


def test_joined_sources_split_into_what_they_were_in_memory_of_their_own() -> None:
    lengths = [4, 1, 30]
    sources = [KeptHeads.rounded(vectors(3, length)) for length in lengths]
    joined = KeptHeads.joined(sources)
    assert joined.tokens == 35
    assert torch.equal(joined.levels[:, 4:5], sources[1].levels)
    for source, part in zip(sources, joined.split(lengths), strict=True):
        assert same(source, part)
        for tensor in (part.levels, scales_of(part)):
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_heads_are_joined_in_order() -> None:
    whole = vectors(5, 7)
    parts = [KeptHeads.rounded(whole[:2]), KeptHeads.rounded(whole[2:])]
    assert same(KeptHeads.joined(parts, dim=0), KeptHeads.rounded(whole))
    assert same(KeptHeads.joined(parts[:1], dim=0), parts[0])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1e-3, 10_000.0])
def test_forged_numbers_are_not_plausible(number: float) -> None:
    kept = KeptHeads.rounded(vectors(2, 3))
    assert kept.is_plausible
    scales_of(kept)[1, 2] = number
    assert not kept.is_plausible
    exact = KeptHeads(vectors(2, 3))
    assert exact.is_plausible
    exact.levels[1, 2, 3] = 1000 * number
    assert exact.is_plausible is (number == -1e-3)


@pytest.mark.parametrize("shape", [(1, 3, 8), (2, 4, 8), (2, 3, 4), (6, 1, 8), (0, 0, 0)], ids=str)
def test_other_shapes_do_not_fit(shape: tuple[int, int, int]) -> None:
    assert not KeptHeads.rounded(vectors(2, 3)).fits(shape, torch.int8)


def test_other_dtypes_and_scales_of_another_shape_do_not_fit() -> None:
    kept = KeptHeads.rounded(vectors(2, 3))
    for forged in (
        KeptHeads(kept.levels.float(), scales_of(kept)),
        KeptHeads(kept.levels, scales_of(kept).float()),
        KeptHeads(kept.levels, scales_of(kept)[:1]),
        KeptHeads(kept.levels, scales_of(kept)[..., None]),
        KeptHeads(kept.levels),
    ):
        assert not forged.fits((2, 3, 8), torch.int8)
    assert kept.fits((2, 3, 8), torch.int8) and not kept.fits((2, 3, 8), torch.float32)
    exact = KeptHeads(vectors(2, 3))
    assert exact.fits((2, 3, 8), torch.float32) and not exact.fits((2, 3, 8), torch.bfloat16)


def test_a_mapped_copy_holds_the_same_and_shares_nothing() -> None:
    exact = vectors(9, 1001).bfloat16()
    for kept in (KeptHeads(exact), KeptHeads.rounded(exact)):
        copy, numbers = kept.mapped(), kept.restored().clone()
        kept.levels.zero_()
        assert copy.fits((9, 1001, 8), kept.levels.dtype)
        assert torch.equal(copy.restored(), numbers)
    small = KeptHeads.rounded(vectors(3, 7))
    assert small.mapped() is small


def test_mapped_memory_goes_back_to_the_system_at_once() -> None:
    kept = [KeptHeads.rounded(torch.ones(1, 1000, 100)).mapped() for _ in range(300)]
    size, resident = sum(one.nbytes for one in kept), psutil.Process().memory_info().rss
    between = [torch.ones(10) for _ in kept]  # comes to lie behind them on a heap
    kept.clear()
    assert resident - psutil.Process().memory_info().rss > 0.8 * size
    assert len(between) == 300
