"""The step as a Triton kernel; a file of its own, since Triton reads a kernel's source when it is defined."""

import triton
import triton.language as tl

BLOCK = 4096


@triton.jit
def step_kernel(z, delta, sums, count, blocks, size: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Block b: elements b * size on; its two sums go to sums[0, b] and sums[1, b]."""
    block = tl.program_id(0)
    at = block * size + tl.arange(0, size)
    inside = at < count
    before = tl.load(z + at, mask=inside, other=0.0).to(tl.float32)
    along = tl.load(delta + at, mask=inside, other=0.0).to(tl.float32)
    after = tl.minimum(tl.maximum(before + 0.5 * along, -2.0), 2.0)
    tl.store(z + at, after.to(z.dtype.element_ty), mask=inside)
    change = tl.where(inside, (after - before) * (after - before), 0.0)
    tl.store(sums + block, tl.sum(change, axis=0))
    tl.store(sums + blocks + block, tl.sum(after * after, axis=0))
