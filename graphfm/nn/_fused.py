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
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    infer_global(symbol)(Template)

    @lower_builtin(symbol, Vector, Vector)
    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, _instruction)


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
        zero = ir.Constant(vector.llvm, ir.Undefined)
        first = builder.insert_element(zero, number, ir.Constant(ir.IntType(32), 0))
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
    r"""Exponential of numbers up to about zero, to :math:`10^{-7}` (:math:`10^{-15}` in 64 bits); NaN stays NaN.

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


@no_type_check
@functools.cache
def kernels(heads: int, dim: int):
    """Kernels for groups of `heads` heads of `dim` channels: forward, then backward for destinations and for sources.

    Arrays are flat. A node has `width` channels and ``width // dim`` heads, whatever the size of a group. Each kernel
    writes the rows from `start` to `stop` and no others.
    """
    lanes = heads * dim
    compiled = functools.partial(njit, nogil=True, cache=_can_cache())

    @compiled
    def forward(start, stop, width, slots, q, k, v, table, bias, mask, out, stats):
        """Output, and of each softmax the largest score and the sum (`stats`, twice the number of heads a row)."""
        total_heads, last, biased = width // dim, len(table) - 1, len(bias) > 0
        score = np.empty(slots * heads, out.dtype)
        for i in range(start, stop):
            for head in range(0, total_heads, heads):
                channel = head * dim
                query = load(q, i * width + channel, lanes)
                top = splat(out, -np.inf, heads)
                edges = 0
                for j in range(slots):
                    e = i * slots + j
                    prefetch(k, table[min(e + AHEAD, last)] * width + channel, lanes)
                    prefetch(v, table[e] * width + channel, lanes)
                    if mask[e]:
                        edges += 1
                        s = head_sum(query * load(k, table[e] * width + channel, lanes), heads)
                        if biased:
                            s = s + load(bias, e * total_heads + head, heads)
                        store(score, j * heads, s)
                        top = maximum(top, s)
                total, mean = splat(out, 0.0, heads), splat(out, 0.0, lanes)
                for j in range(slots):
                    e = i * slots + j
                    if mask[e]:
                        p = exp(load(score, j * heads, heads) - top)
                        total = total + p
                        mean = fma(spread(p, dim), load(v, table[e] * width + channel, lanes), mean)
                if edges:
                    mean = mean * spread(splat(out, 1.0, heads) / total, dim)
                store(out, i * width + channel, mean)
                store(stats, 2 * i * total_heads + head, top)
                store(stats, (2 * i + 1) * total_heads + head, total)

    @compiled
    def destinations(start, stop, width, slots, q, k, v, table, bias, mask, stats, grad, weight, slope, dq):
        """Each edge's softmax `weight` and the gradient of its score (`slope`), and the gradient of `q`."""
        total_heads, last, biased = width // dim, len(table) - 1, len(bias) > 0
        for i in range(start, stop):
            for head in range(0, total_heads, heads):
                channel = head * dim
                query, up = load(q, i * width + channel, lanes), load(grad, i * width + channel, lanes)
                top = load(stats, 2 * i * total_heads + head, heads)
                share = splat(dq, 1.0, heads) / load(stats, (2 * i + 1) * total_heads + head, heads)
                mean = splat(dq, 0.0, heads)
                for j in range(slots):
                    e = i * slots + j
                    prefetch(k, table[min(e + AHEAD, last)] * width + channel, lanes)
                    prefetch(v, table[min(e + AHEAD, last)] * width + channel, lanes)
                    if mask[e]:
                        s = head_sum(query * load(k, table[e] * width + channel, lanes), heads)
                        if biased:
                            s = s + load(bias, e * total_heads + head, heads)
                        p = exp(s - top) * share
                        t = head_sum(up * load(v, table[e] * width + channel, lanes), heads)
                        mean = fma(p, t, mean)
                        store(weight, e * total_heads + head, p)
                        store(slope, e * total_heads + head, t)
                total = splat(dq, 0.0, lanes)
                for j in range(slots):
                    e = i * slots + j
                    at = e * total_heads + head
                    if mask[e]:
                        s = load(weight, at, heads) * (load(slope, at, heads) - mean)
                        store(slope, at, s)
                        total = fma(spread(s, dim), load(k, table[e] * width + channel, lanes), total)
                    else:
                        store(slope, at, splat(dq, 0.0, heads))
                store(dq, i * width + channel, total)

    @compiled
    def sources(start, stop, width, slots, q, grad, pointer, edge, weight, slope, dk, dv):
        """Gradients of keys and values, each row summed over the edges out of it, in their order."""
        total_heads, last = width // dim, len(edge) - 1
        for j in range(start, stop):
            for head in range(0, total_heads, heads):
                channel = head * dim
                key, value = splat(dk, 0.0, lanes), splat(dk, 0.0, lanes)
                for at in range(pointer[j], pointer[j + 1]):
                    e = edge[min(at + AHEAD, last)]
                    i = e // slots
                    prefetch(q, i * width + channel, lanes)
                    prefetch(grad, i * width + channel, lanes)
                    prefetch(slope, e * total_heads + head, heads)
                    prefetch(weight, e * total_heads + head, heads)
                    e = edge[at]
                    i = e // slots
                    s, p = load(slope, e * total_heads + head, heads), load(weight, e * total_heads + head, heads)
                    key = fma(spread(s, dim), load(q, i * width + channel, lanes), key)
                    value = fma(spread(p, dim), load(grad, i * width + channel, lanes), value)
                store(dk, j * width + channel, key)
                store(dv, j * width + channel, value)

    return forward, destinations, sources


@no_type_check
@functools.cache
def edges_by_source():
    """A kernel that sorts edges by their source and keeps their order otherwise (counting sort)."""

    @njit(nogil=True, cache=_can_cache())
    def sort(table, mask, pointer, edge):
        """Fill `pointer` (zeros before; one more than sources) and `edge`, the numbers of the edges of each source."""
        for e in range(len(table)):
            if mask[e]:
                pointer[table[e] + 1] += 1
        for j in range(1, len(pointer)):
            pointer[j] += pointer[j - 1]
        place = pointer[:-1].copy()
        for e in range(len(table)):
            if mask[e]:
                edge[place[table[e]]] = e
                place[table[e]] += 1

    return sort


@no_type_check
def _can_cache() -> bool:
    """Whether numba finds a folder that it may write to; it raises an error otherwise."""
    try:
        njit(cache=True)(_can_cache)
    except RuntimeError:
        return False
    return True
