"""A training step in plain NumPy float32: the arithmetic that the kernels promise, without programs or a device.

Written from the documented order of operations. Results must agree with the device to the last bit.
"""

import numpy as np

F = np.float32
SMALLEST = np.finfo(np.float32).tiny

LOG2_E, LN2_HIGH, LN2_LOW, LN2 = F(1.44269504), F(0.693359375), F(-2.12194440e-4), F(0.693147181)
EXP = [F(c) for c in (1.0, 1.0, 0.5000000107814145, 0.16666415376600482, 0.04166621809476634, 0.008375137267927739,
                      0.0013948592777879762)]
LOG = [F(c) for c in (0.40546510379299017, 0.6666666814031873, -0.22222136822684496, 0.09876426659756406,
                      -0.049409618339968694, 0.026363114094258643, -0.014338342039309285, 0.008132977530377419,
                      -0.0061514709703425815, 0.0037526241768236187)]


def flush(x):
    x = np.asarray(x, dtype=np.float32)
    return np.where(np.abs(x) < SMALLEST, np.copysign(F(0), x), x)


def pad(x, n):
    rows, columns = x.shape
    return np.pad(x, ((0, -rows % n), (0, -columns % n)))


def quantize(x, n):
    """Mantissas (padded matrix) and exponents (one for each n x n tile)."""
    x = pad(flush(x), n)
    tiles = x.reshape(x.shape[0] // n, n, -1, n).transpose(0, 2, 1, 3)
    largest = np.abs(tiles).max(axis=(2, 3))
    exponents = np.where(largest > 0, np.frexp(largest)[1] - 1 - 6, 0)
    mantissas = np.clip(np.rint(tiles.astype(np.float64) * 2.0 ** -exponents[:, :, None, None]), -127, 127)
    return mantissas.transpose(0, 2, 1, 3).reshape(x.shape), exponents


def transpose(quantized):
    return quantized[0].T, quantized[1].T


def product(x, w, n, start=0.0):
    """X W with one float32 addition for each reduction tile, ascending, onto ``start``."""
    (xm, xe), (wm, we) = x, w
    total = np.zeros((xm.shape[0], wm.shape[1]), dtype=np.float32) + F(start)
    for k in range(xe.shape[1]):
        part = xm[:, k * n:(k + 1) * n] @ wm[k * n:(k + 1) * n]
        scale = np.kron(2.0 ** (xe[:, k, None] + we[None, k, :]), np.ones((n, n)))
        total = flush(total + flush((part * scale).astype(np.float32)))
    return total


def polynomial(x, coefficients):
    y = flush(flush(x * coefficients[-1]) + coefficients[-2])
    for c in coefficients[-3::-1]:
        y = flush(flush(y * x) + c)
    return y


def scale2(x, exponent):
    with np.errstate(under="ignore"):
        return flush(np.ldexp(x, exponent.astype(np.int32)))


def exp(x):
    x = np.maximum(x, F(-104))
    k = np.rint(flush(x * LOG2_E))
    r = flush(flush(k * -LN2_HIGH) + x)
    r = flush(flush(k * -LN2_LOW) + r)
    return scale2(polynomial(r, EXP), k)


def log(x):
    e = (np.frexp(x)[1] - 1).astype(np.float32)
    return flush(flush(e * LN2) + polynomial(flush(scale2(x, -e) + F(-1.5)), LOG))


def reciprocal(x):
    r = (0x7EF311C7 - x.view(np.int32)).astype(np.int32).view(np.float32)
    for _ in range(3):
        r = flush(r * flush(F(2) - flush(x * r)))
    return r


def butterfly(op, x, n):
    """``op`` over all columns: panels of n ascending, then lanes l and l XOR 1, 2, 4, ..."""
    total = x[:, :n]
    for first in range(n, x.shape[1], n):
        total = op(total, x[:, first:first + n])
    mask = 1
    while mask < n:
        total = op(total, total[:, np.arange(n) ^ mask])
        mask *= 2
    return total[:, :1]


def column_sums(x, n):
    """Over rows: in each tile of n rows by halves, then tiles ascending."""
    x = pad(x, n)
    total = None
    for first in range(0, len(x), n):
        part = x[first:first + n]
        while len(part) > 1:
            part = part[:len(part) // 2] + part[len(part) // 2:]
        total = part[0] if total is None else total + part[0]
    return total


class Reference:
    """A network of Linear layers with ReLU between, float32 masters ``weights`` (in, out) and ``biases``."""

    def __init__(self, weights, biases, n):
        self.weights, self.biases, self.n = [w.copy() for w in weights], [b.copy() for b in biases], n

    def forward(self, x):
        """Logits with padding lanes, and what the backward pass needs."""
        n = self.n
        values = [flush(x.astype(np.float32) * F(1 / 255)) if x.dtype == np.uint8 else x]
        tiles = []
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            tiles.append(quantize(values[-1], n))
            start = np.zeros(-(-w.shape[1] // n) * n, dtype=np.float32)
            start[:len(b)] = b
            if i == len(self.weights) - 1:
                start[len(b):] = F(-1e30)
            y = product(tiles[-1], quantize(w, n), n, start)[:len(x)]
            values.append(y if i == len(self.weights) - 1 else np.maximum(y, F(0))[:, :w.shape[1]])
        return values[-1], values, tiles

    def outputs(self, x):
        return self.forward(x)[0][:, :self.weights[-1].shape[1]]

    def step(self, x, labels, lr):
        """One SGD step. Returns logits and the loss of each sample."""
        n, samples = self.n, len(x)
        logits, values, tiles = self.forward(x)
        shifted = logits - butterfly(np.maximum, logits, n)
        e = exp(shifted)
        total = butterfly(np.add, e, n)
        onehot = np.zeros_like(logits)
        onehot[np.arange(samples), labels] = 1
        losses = log(total)[:, 0] - butterfly(np.add, shifted * onehot, n)[:, 0]
        gradient = flush(flush(flush(e * reciprocal(total)) * F(1 / samples)) + onehot * F(-1 / samples))
        gradient = gradient[:, :self.weights[-1].shape[1]]
        for i in reversed(range(len(self.weights))):
            rows, columns = self.weights[i].shape
            dy = quantize(gradient, n)
            sums = column_sums(gradient, n)[:columns]
            if i:
                back = product(dy, transpose(quantize(self.weights[i], n)), n)[:samples, :rows]
                back = np.where(values[i] > 0, back, F(0))
            dw = product(transpose(tiles[i]), dy, n)[:rows, :columns]
            self.weights[i] = flush(flush(dw * F(-lr)) + self.weights[i])
            self.biases[i] = flush(flush(sums * F(-lr)) + self.biases[i])
            if i:
                gradient = back
        return logits[:, :self.weights[-1].shape[1]], losses
