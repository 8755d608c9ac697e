"""Elementary functions as sequences of vector instructions, in float32.

Every step rounds to float32, in the order written here; NumPy float32 gives the same bits.
"""

from macaw_hw.isa import VectorOp

__all__ = ["EXP", "LOG", "exp", "log", "lane_reduce", "reciprocal"]

LOG2_E = 1.44269504088896341
# ln 2 in two parts, the first with 9 significant bits, so that its products with small integers are exact
# (Cody and Waite; the constants of Cephes expf).
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
LN2 = 0.693147180559945309

EXP = (1.0, 1.0, 0.5000000107814145, 0.16666415376600482, 0.04166621809476634, 0.008375137267927739,
       0.0013948592777879762)
"""Coefficients of exp(r) for |r| <= ln(2) / 2, constant first (Chebyshev; error below 3e-9)."""
LOG = (0.40546510379299017, 0.6666666814031873, -0.22222136822684496, 0.09876426659756406, -0.049409618339968694,
       0.026363114094258643, -0.014338342039309285, 0.008132977530377419, -0.0061514709703425815,
       0.0037526241768236187)
"""Coefficients of log(1.5 + u) for |u| <= 1/2, constant first (Chebyshev; error below 6e-9)."""
LOWEST = -104.0
"""Arguments of :func:`exp` below this are taken as this. Results below 2^-126 are zero."""


def _polynomial(k, d, x, coefficients):
    """``d`` = polynomial in ``x`` by Horner's rule."""
    *rest, second, highest = coefficients
    yield k.op(VectorOp.MUL_SCALAR, d, x, scalar=highest)
    yield k.op(VectorOp.ADD_SCALAR, d, d, scalar=second)
    for coefficient in rest[::-1]:
        yield k.op(VectorOp.MUL_ADD_SCALAR, d, d, x, scalar=coefficient)


def exp(k, d, x, t, n):
    """``d`` = exp(x) for x <= 88, within 2 units in the last place; 0 below about -87.3. ``t`` and ``n`` are
    scratch blocks."""
    yield k.op(VectorOp.MAX_SCALAR, t, x, scalar=LOWEST)
    yield k.op(VectorOp.MUL_SCALAR, n, t, scalar=LOG2_E)
    yield k.op(VectorOp.ROUND, n, n)
    yield k.op(VectorOp.SCALE_ADD, t, n, t, scalar=-LN2_HIGH)
    yield k.op(VectorOp.SCALE_ADD, t, n, t, scalar=-LN2_LOW)
    yield from _polynomial(k, d, t, EXP)
    yield k.op(VectorOp.SCALE2, d, d, n)


def log(k, d, x, u, e):
    """``d`` = log(x) for normal x > 0, with an absolute error below 2e-7 near 1. ``u`` and ``e`` are scratch."""
    yield k.op(VectorOp.EXPONENT, e, x)
    yield k.op(VectorOp.MUL_SCALAR, u, e, scalar=-1.0)
    yield k.op(VectorOp.SCALE2, u, x, u)
    yield k.op(VectorOp.ADD_SCALAR, u, u, scalar=-1.5)
    yield from _polynomial(k, d, u, LOG)
    yield k.op(VectorOp.SCALE_ADD, d, e, d, scalar=LN2)


def reciprocal(k, d, x, t):
    """``d`` = 1 / x within 2 units in the last place: the seed and three Newton steps r(2 - xr)."""
    yield k.op(VectorOp.RECIPROCAL_SEED, d, x)
    for _ in range(3):
        yield k.op(VectorOp.NMUL_ADD_SCALAR, t, x, d, scalar=2.0)
        yield k.op(VectorOp.MUL, d, d, t)


def lane_reduce(k, op, d, a):
    """All lanes of ``d`` = ``op`` over all elements of each row of ``a``.

    Panels are combined in ascending order; then lanes l and l XOR 1, then pairs l and l XOR 2, and so on.
    """
    first = a.part(0, 1)
    for panel in range(1, a.panels):
        yield k.op(op, d, first, a.part(panel, 1))
        first = d
    mask = 1
    while mask < k.n:
        yield k.op(op, d, first, first, shuffle=mask)
        first, mask = d, 2 * mask
