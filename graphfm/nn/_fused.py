"""Attention over a table of neighbours as CPU kernels: all channels of a group of heads are one LLVM vector.

Compiled by numba on first use, for the widths at hand, and kept in its cache on disk. Vectors and kernels stand in one
file because that cache asks only whether the kernels' own file has changed.
"""

import functools
import math
import operator
from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

AHEAD = 8
"""Edges between a row's prefetch and its use."""


class Vector(types.Type):
    """Type of a vector of `lanes` floats of `bits` bits."""

    def __init__(self, bits, lanes):
        self.bits, self.lanes = bits, lanes
        super().__init__(f"Vector({bits}, {lanes})")

    @property
    def llvm(self):
        """The same for LLVM."""
        return ir.VectorType(ir.FloatType() if self.bits == 32 else ir.DoubleType(), self.lanes)

    @property
    def integers(self):
        """The vector of integers of this size."""
        return ir.VectorType(ir.IntType(self.bits), self.lanes)

    def constant(self, value):
        """The same number in all lanes."""
        return ir.Constant(self.llvm, [float(value)] * self.lanes)


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A vector is itself, in registers and in memory."""

    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.llvm)


def _operator(symbol, instruction):
    class Template(AbstractTemplate):
        key = symbol

        def generic(self, args, kws):
            alike = len(args) == 2 and args[0] == args[1]
            return signature(args[0], *args) if alike and isinstance(args[0], Vector) else None

    infer_global(symbol, types.Function(Template))

    @lower_builtin(symbol, Vector, Vector)
    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


def _pointer(context, builder, array, value, offset, to):
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [offset]), to.as_pointer())


def _call(builder, name, result, args):
    function = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)


def _fma(builder, vector, a, b, c):
    # "muladd": fused only where the processor can, elsewhere LLVM would call a function for each lane
    return _call(builder, f"llvm.fmuladd.v{vector.lanes}f{vector.bits}", vector.llvm, [a, b, c])


def _shuffle(builder, value, lanes):
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


@intrinsic(prefer_literal=True)
def load(context, array, offset, lanes):
    """Vector of `lanes` numbers from `offset` on; 16 bits are a bfloat16 and become a float32."""
    short = array.dtype.bitwidth == 16
    vector = Vector(32 if short else array.dtype.bitwidth, lanes.literal_value)
    kept = ir.VectorType(ir.IntType(16), vector.lanes) if short else vector.llvm

    def code(context, builder, sig, args):
        at = _pointer(context, builder, array, args[0], args[1], kept)
        value = builder.load(at, align=array.dtype.bitwidth // 8)
        if short:
            shift = ir.Constant(vector.integers, [16] * vector.lanes)
            value = builder.bitcast(builder.shl(builder.zext(value, vector.integers), shift), vector.llvm)
        return value

    return vector(array, offset, lanes), code


@intrinsic(prefer_literal=True)
def store(context, array, offset, vector):
    """Write a vector from `offset` on."""

    def code(context, builder, sig, args):
        at = _pointer(context, builder, array, args[0], args[1], vector.llvm)
        builder.store(args[2], at, align=vector.bits // 8)
        return context.get_dummy_value()

    return types.none(array, offset, vector), code


@intrinsic(prefer_literal=True)
def prefetch(context, array, offset, lanes):
    """Ask for the cache lines of `lanes` numbers from `offset` on."""
    size = array.dtype.bitwidth // 8

    def code(context, builder, sig, args):
        number = ir.IntType(32)
        # to read, into the second level (a tenth faster than into the first), data
        hint = [ir.Constant(number, x) for x in (0, 2, 1)]
        for lane in range(0, lanes.literal_value, 64 // size):
            offset = builder.add(args[1], ir.Constant(args[1].type, lane))
            at = _pointer(context, builder, array, args[0], offset, ir.IntType(8))
            _call(builder, "llvm.prefetch.p0", ir.VoidType(), [at, *hint])
        return context.get_dummy_value()

    return types.none(array, offset, lanes), code


@intrinsic(prefer_literal=True)
def splat(context, array, value, lanes):
    """A number in all of `lanes`, as precise as `array`."""
    vector = Vector(array.dtype.bitwidth, lanes.literal_value)

    def code(context, builder, sig, args):
        number = args[1] if vector.bits == 64 else builder.fptrunc(args[1], ir.FloatType())
        empty = ir.Constant(vector.llvm, ir.Undefined)
        first = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
        return _shuffle(builder, first, [0] * vector.lanes)

    return vector(array, types.float64, lanes), code


@intrinsic(prefer_literal=True)
def fma(context, a, b, c):
    """``a * b + c``."""

    def code(context, builder, sig, args):
        return _fma(builder, a, *args)

    return a(a, b, c), code


@intrinsic(prefer_literal=True)
def head_sum(context, vector, heads):
    """Sum of each head's lanes: a tree of sums of neighbours, as deep as a head has powers of two."""
    result = Vector(vector.bits, heads.literal_value)

    def code(context, builder, sig, args):
        value = args[0]
        while (lanes := value.type.count) > result.lanes:
            even, odd = (_shuffle(builder, value, range(start, lanes, 2)) for start in (0, 1))
            value = builder.fadd(even, odd)
        return value

    return result(vector, heads), code


@intrinsic(prefer_literal=True)
def spread(context, vector, dim):
    """Each head's number in all of its `dim` lanes."""
    result = Vector(vector.bits, vector.lanes * dim.literal_value)

    def code(context, builder, sig, args):
        return _shuffle(builder, args[0], [lane // dim.literal_value for lane in range(result.lanes)])

    return result(vector, dim), code


@intrinsic(prefer_literal=True)
def maximum(context, a, b):
    """The larger in each lane; `a` where `b` is NaN."""

    def code(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", args[1], args[0]), args[1], args[0])

    return a(a, b), code


@intrinsic(prefer_literal=True)
def exp(context, x):
    r"""Exponential of numbers up to about zero, to :math:`10^{-7}` (:math:`10^{-13}` in 64 bits); NaN stays NaN.

    With :math:`x = n \ln 2 + r` it is :math:`2^n` times the Taylor polynomial at :math:`r`, \|r\| <= 0.35.
    """
    mantissa, lowest, degree, short = (23, -86.0, 7, 9) if x.bits == 32 else (52, -700.0, 13, 32)
    # ln 2 in two parts: n times the first, of few bits, is exact
    high = math.floor(math.log(2) * 2.0**short) / 2.0**short
    low = math.log(2) - high

    def code(context, builder, sig, args):
        # in a number this large the last bit is worth 1: adding it rounds to n and leaves n in the lowest bits
        shift = x.constant(1.5 * 2.0**mantissa)
        rounded = _fma(builder, x, args[0], x.constant(1 / math.log(2)), shift)
        n = builder.fsub(rounded, shift)
        r = _fma(builder, x, n, x.constant(-low), _fma(builder, x, n, x.constant(-high), args[0]))
        value = x.constant(1 / math.factorial(degree))
        for power in reversed(range(degree)):
            value = _fma(builder, x, value, r, x.constant(1 / math.factorial(power)))
        exponent = builder.shl(builder.bitcast(rounded, x.integers), ir.Constant(x.integers, [mantissa] * x.lanes))
        value = builder.bitcast(builder.add(builder.bitcast(value, x.integers), exponent), x.llvm)
        value = builder.select(builder.fcmp_ordered(">", args[0], x.constant(lowest)), value, x.constant(0))
        return builder.select(builder.fcmp_unordered("uno", args[0], args[0]), args[0], value)

    return x(x), code


# The kernels are compiled for groups of `heads` heads of `dim` channels. Arrays are flat; a row has `width` channels,
# one group after the other, and `slots` neighbours. Rows `start` to `stop` are written and no others. A kernel closes
# over whole numbers alone: with anything else numba's cache would never find it again.


@no_type_check
@functools.cache
def forward_kernel(heads: int, dim: int):
    """The output, and of each softmax the largest score and the sum: `stats`, ``[n, 2, all heads]``."""
    lanes = heads * dim

    @njit(nogil=True, cache=_can_cache())
    def forward(start, stop, width, slots, q, k, v, table, bias, mask, out, stats):
        all_heads, last, biased = width // dim, len(table) - 1, len(bias) > 0
        score = np.empty(slots * heads, out.dtype)
        for i in range(start, stop):
            for head in range(0, all_heads, heads):
                channel, edges, top = head * dim, 0, splat(out, -np.inf, heads)
                query = load(q, i * width + channel, lanes)
                for j in range(slots):
                    e = i * slots + j
                    prefetch(k, table[min(e + AHEAD, last)] * width + channel, lanes)
                    prefetch(v, table[e] * width + channel, lanes)
                    if mask[e]:
                        s = head_sum(query * load(k, table[e] * width + channel, lanes), heads)
                        if biased:
                            s = s + load(bias, e * all_heads + head, heads)
                        store(score, edges * heads, s)
                        top = maximum(top, s)
                        edges += 1
                total, mean, edges = splat(out, 0.0, heads), splat(out, 0.0, lanes), 0
                for e in range(i * slots, (i + 1) * slots):
                    if mask[e]:
                        p = exp(load(score, edges * heads, heads) - top)
                        total = total + p
                        mean = fma(spread(p, dim), load(v, table[e] * width + channel, lanes), mean)
                        edges += 1
                if edges:
                    mean = mean * spread(splat(out, 1.0, heads) / total, dim)
                store(out, i * width + channel, mean)
                store(stats, 2 * i * all_heads + head, top)
                store(stats, (2 * i + 1) * all_heads + head, total)

    return forward


@no_type_check
@functools.cache
def destination_kernel(heads: int, dim: int):
    """Each edge's share in the softmax (`weight`), the gradient of its score (`slope`), and the gradient of `q`."""
    lanes = heads * dim

    @njit(nogil=True, cache=_can_cache())
    def destinations(start, stop, width, slots, q, k, v, table, bias, mask, stats, grad, weight, slope, dq):
        all_heads, last, biased = width // dim, len(table) - 1, len(bias) > 0
        for i in range(start, stop):
            for head in range(0, all_heads, heads):
                channel, mean, total = head * dim, splat(dq, 0.0, heads), splat(dq, 0.0, lanes)
                query, up = load(q, i * width + channel, lanes), load(grad, i * width + channel, lanes)
                top = load(stats, 2 * i * all_heads + head, heads)
                share = splat(dq, 1.0, heads) / load(stats, (2 * i + 1) * all_heads + head, heads)
                for e in range(i * slots, (i + 1) * slots):
                    prefetch(k, table[min(e + AHEAD, last)] * width + channel, lanes)
                    prefetch(v, table[min(e + AHEAD, last)] * width + channel, lanes)
                    if mask[e]:
                        s = head_sum(query * load(k, table[e] * width + channel, lanes), heads)
                        if biased:
                            s = s + load(bias, e * all_heads + head, heads)
                        p = exp(s - top) * share
                        t = head_sum(up * load(v, table[e] * width + channel, lanes), heads)
                        mean = fma(p, t, mean)
                        store(weight, e * all_heads + head, p)
                        store(slope, e * all_heads + head, t)
                for e in range(i * slots, (i + 1) * slots):
                    at, s = e * all_heads + head, splat(dq, 0.0, heads)
                    if mask[e]:
                        s = load(weight, at, heads) * (load(slope, at, heads) - mean)
                        total = fma(spread(s, dim), load(k, table[e] * width + channel, lanes), total)
                    store(slope, at, s)
                store(dq, i * width + channel, total)

    return destinations


@no_type_check
@functools.cache
def source_kernel(heads: int, dim: int):
    """The gradients of `k` and `v`: each row is summed over the edges that leave it, in their order."""
    lanes = heads * dim

    @njit(nogil=True, cache=_can_cache())
    def sources(start, stop, width, slots, q, grad, pointer, edge, weight, slope, dk, dv):
        all_heads, last = width // dim, len(edge) - 1
        for j in range(start, stop):
            for head in range(0, all_heads, heads):
                channel, key, value = head * dim, splat(dk, 0.0, lanes), splat(dv, 0.0, lanes)
                for at in range(pointer[j], pointer[j + 1]):
                    e = edge[min(at + AHEAD, last)]
                    prefetch(q, e // slots * width + channel, lanes)
                    prefetch(grad, e // slots * width + channel, lanes)
                    prefetch(slope, e * all_heads + head, heads)
                    prefetch(weight, e * all_heads + head, heads)
                    e = edge[at]
                    row, one = e // slots * width + channel, e * all_heads + head
                    key = fma(spread(load(slope, one, heads), dim), load(q, row, lanes), key)
                    value = fma(spread(load(weight, one, heads), dim), load(grad, row, lanes), value)
                store(dk, j * width + channel, key)
                store(dv, j * width + channel, value)

    return sources


@no_type_check
@functools.cache
def edge_sort():
    """The edges of each source in their order (counting sort): their numbers, and where each source's begin."""

    @njit(nogil=True, cache=_can_cache())
    def sort(table, mask, sources):
        pointer = np.zeros(sources + 1, np.int64)
        for e in range(len(table)):
            if mask[e]:
                pointer[table[e] + 1] += 1
        for j in range(sources):
            pointer[j + 1] += pointer[j]
        place, edge = pointer.copy(), np.empty(pointer[sources], np.int64)
        for e in range(len(table)):
            if mask[e]:
                edge[place[table[e]]] = e
                place[table[e]] += 1
        return pointer, edge

    return sort


@no_type_check
@functools.cache
def _can_cache():
    """Whether numba finds a folder that it may write to: without one, asking for its cache is an error."""
    try:
        njit(cache=True)(lambda: None)
    except RuntimeError:
        return False
    return True
