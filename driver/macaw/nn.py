"""Networks with PyTorch's names, shapes and initial values.

A module only describes: what runs on the device is built by :class:`macaw.Trainer` and
:class:`macaw.Model` from the description. Parameters are float32 arrays of the host; while a trainer works
on them, the newest values are in the memory of its device and are fetched when they are looked at.
"""

import math

import numpy as np

__all__ = ["CrossEntropyLoss", "Linear", "Module", "Parameter", "ReLU", "Sequential", "Softmax", "manual_seed"]

_generator = np.random.default_rng(0)


def manual_seed(seed):
    """Start the random numbers of parameter initialisation anew; the same seed gives the same parameters."""
    global _generator
    _generator = np.random.default_rng(seed)


class Parameter:
    """A trainable float32 array.

    Attributes
    ----------
    data : ndarray of float32
        The newest value: fetched from the device when a trainer has changed it there. Treat it as read-only;
        assign a whole new array of the same shape to change it.
    version : int
        Grows with every change, on the host or on the device.
    """

    def __init__(self, data):
        self._data = np.array(data, dtype=np.float32)
        self._fetch = None
        self.version = 0

    @property
    def shape(self):
        return self._data.shape

    @property
    def size(self):
        return self._data.size

    @property
    def data(self):
        if self._fetch is not None:
            self._data = np.array(self._fetch(), dtype=np.float32).reshape(self._data.shape)
            self._fetch = None
        return self._data

    @data.setter
    def data(self, value):
        value = np.asarray(value)
        if value.shape != self.shape:
            raise ValueError(f"parameter has shape {self.shape}, not {value.shape}")
        if value.dtype != np.float32:
            raise TypeError(f"parameter must be float32, not {value.dtype}; convert with .astype('float32')")
        if not np.isfinite(value).all():
            raise ValueError(f"parameter must be finite; value {_first_non_finite(value)}")
        self._data = value.copy()
        self._fetch = None
        self.version += 1

    def changed_on_device(self, fetch):
        """Note that the device holds a newer value, which ``fetch()`` returns."""
        self._fetch = fetch
        self.version += 1

    def __repr__(self):
        return f"Parameter{self.shape}"


def _first_non_finite(value):
    where = np.unravel_index(int(np.argmin(np.isfinite(value))), value.shape)
    return f"at index {tuple(map(int, where))} is {value[where]}"


class Module:
    """Base of all modules: named parameters and a state dict."""

    def named_parameters(self):
        """Pairs of name and :class:`Parameter`, in PyTorch's order."""
        yield from ()

    def parameters(self):
        """The parameters, in PyTorch's order."""
        return [parameter for _, parameter in self.named_parameters()]

    def state_dict(self):
        """Copies of all parameters by name: what ``torch.nn.Sequential.state_dict()`` holds, as NumPy arrays."""
        return {name: parameter.data.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state):
        """Replace all parameters by those of ``state`` (a mapping of name to array or CPU tensor).

        Nothing is changed when an error is raised.

        Raises
        ------
        KeyError
            When names are missing or unexpected.
        ValueError, TypeError
            When a shape, a dtype (float32 is required) or a value (NaN, infinity) is wrong.
        """
        own = dict(self.named_parameters())
        missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        if missing or unexpected:
            raise KeyError("state does not fit this network: "
                           + "; ".join(f"{what} {', '.join(names)}" for what, names in
                                       (("missing", missing), ("unexpected", unexpected)) if names))
        checked = {}
        for name, parameter in own.items():
            value = np.asarray(state[name])
            if value.shape != parameter.shape:
                raise ValueError(f"{name} must have shape {parameter.shape}, not {value.shape}")
            if value.dtype != np.float32:
                raise TypeError(f"{name} must be float32, not {value.dtype}; "
                                "convert with .astype('float32')")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite; value {_first_non_finite(value)}")
            checked[name] = value
        for name, value in checked.items():
            own[name].data = value


class Linear(Module):
    """``y = x W^T + b`` with ``weight`` of shape (out_features, in_features) and ``bias`` (out_features,).

    Both start uniform in +-1/sqrt(in_features), as PyTorch's (``kaiming_uniform_(a=sqrt(5))``), from ``generator``
    (a ``numpy.random.Generator``) or from the numbers that :func:`manual_seed` starts.
    """

    def __init__(self, in_features, out_features, bias=True, *, generator=None):
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        self.in_features, self.out_features = int(in_features), int(out_features)
        generator = _generator if generator is None else generator
        bound = 1 / math.sqrt(in_features)
        self.weight = Parameter(generator.uniform(-bound, bound, (self.out_features, self.in_features)))
        self.bias = Parameter(generator.uniform(-bound, bound, self.out_features)) if bias else None

    def named_parameters(self):
        yield "weight", self.weight
        if self.bias is not None:
            yield "bias", self.bias

    def __repr__(self):
        return (f"Linear(in_features={self.in_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None})")


class ReLU(Module):
    """``max(x, 0)``."""

    def __repr__(self):
        return "ReLU()"


class Softmax(Module):
    """``exp(x) / sum(exp(x))`` over the features; only as the last module, and not in front of
    :class:`CrossEntropyLoss`, which contains it."""

    def __init__(self, dim=-1):
        if dim not in (1, -1):
            raise ValueError(f"dim must be 1 or -1 (the features), not {dim!r}")
        self.dim = dim

    def __repr__(self):
        return f"Softmax(dim={self.dim})"


class Sequential(Module):
    """Modules one after the other. Parameters are named ``<index>.weight`` and ``<index>.bias``."""

    def __init__(self, *modules):
        for index, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"module {index} must be a macaw.nn.Module, not {type(module).__name__}")
        self.modules = tuple(modules)

    def named_parameters(self):
        for index, module in enumerate(self.modules):
            for name, parameter in module.named_parameters():
                yield f"{index}.{name}", parameter

    def __len__(self):
        return len(self.modules)

    def __iter__(self):
        return iter(self.modules)

    def __getitem__(self, index):
        return self.modules[index]

    def __repr__(self):
        return "Sequential(\n" + "".join(f"  ({i}): {m!r}\n" for i, m in enumerate(self.modules)) + ")"


class CrossEntropyLoss(Module):
    """Mean over the batch of ``log(sum(exp(x))) - x[label]``: softmax and negative log-likelihood in one."""

    def __repr__(self):
        return "CrossEntropyLoss()"
