"""Pictures: curves of a training run, a timeline of the units, a roofline."""

import io

import numpy as np

__all__ = ["NO_WORK", "curves", "roofline", "timeline"]

_BINS = 700
_WORK_COLORS = ("#1f5fa8", "#4fa3d8", "#0b2f5c", "#7b8fd0")
NO_WORK = {"memory": "#e8862e", "other": "#f5c469", "token": "#e3b7b7", "idle": "#f4f4f4"}
"""States of a unit that are no work, with their colors."""
_NO_WORK_LABELS = ("stalls: bank of a local memory", "stalls: other", "waits for a token", "nothing to do")


def curves(steps, evaluations, title):
    """Loss and accuracy over the trained images, as PNG.

    Parameters
    ----------
    steps : list of dict
        ``loss``, ``correct`` and ``samples`` of each training step.
    evaluations : list of dict
        ``images`` (trained before), ``loss`` and ``accuracy`` of each evaluation on the test set.
    title : str

    Returns
    -------
    bytes
    """
    from matplotlib.figure import Figure

    samples = np.array([step["samples"] for step in steps])
    images = np.cumsum(samples)
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    loss, accuracy = figure.subplots(1, 2)
    window = max(1, len(steps) // 50)
    share = np.array([step["correct"] for step in steps]) / samples
    for axes, values, key, label in ((loss, np.array([step["loss"] for step in steps]), "loss", "Loss"),
                                     (accuracy, 100 * share, "accuracy", "Accuracy in %")):
        axes.plot(images, values, color="C0", alpha=0.25, linewidth=1)
        axes.plot(*_smooth(images, values, window), color="C0", label="training batches")
        scale = 100 if key == "accuracy" else 1
        axes.plot([e["images"] for e in evaluations], [scale * e[key] for e in evaluations], "o--", color="C3",
                  label="test set")
        axes.set_xlabel("Images trained on")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right" if key == "loss" else "lower right")
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=101)
    return _png(figure)


def _smooth(x, y, window):
    """Means over ``window`` values, each at the last of them."""
    if len(y) < window:
        return x, y
    sums = np.cumsum(np.insert(y.astype(float), 0, 0))
    return x[window - 1:], (sums[window:] - sums[:-window]) / window


def timeline(recording, title):
    """What the four units do over a run, as PNG: for each, the shares of short stretches of time.

    Parameters
    ----------
    recording : macaw.trace.Recording
    title : str

    Returns
    -------
    bytes
    """
    from matplotlib.figure import Figure

    bins = min(_BINS, recording.cycles)
    edges = np.linspace(0, recording.cycles, bins + 1).astype(int)
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    figure.suptitle(title)
    rows = figure.subplots(len(recording.states), 1, sharex=True)
    for axes, (queue, states) in zip(rows, recording.states.items(), strict=True):
        kinds = [name for name in states if name not in NO_WORK]
        colors = dict(zip(kinds, _WORK_COLORS, strict=False)) | NO_WORK
        shares = [100 * np.add.reduceat(states[name], edges[:-1]) / np.diff(edges) for name in (*kinds, *NO_WORK)]
        axes.stackplot(edges[:-1], shares, step="post", linewidth=0,
                       colors=[colors[name] for name in (*kinds, *NO_WORK)],
                       labels=[name if name in kinds else None for name in (*kinds, *NO_WORK)])
        work = sum(states[name].sum() for name in kinds) / recording.cycles
        axes.set_ylabel(f"{queue.name.lower()}\n{work:.0%}", rotation=0, ha="right", va="center")
        axes.set(xlim=(0, recording.cycles), ylim=(0, 100), yticks=[])
        if kinds:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    rows[-1].set_xlabel("Cycles since the doorbell")
    figure.legend([_patch(color) for color in NO_WORK.values()], _NO_WORK_LABELS, loc="outside lower center", ncols=4,
                  frameon=False, fontsize=8)
    return _png(figure)


def roofline(points, configs, title):
    """Operational intensity against useful MACs per cycle, as PNG.

    Parameters
    ----------
    points : list of tuple
        Label, name of the configuration, MACs per byte of bus traffic, MACs per cycle.
    configs : dict of str to macaw_hw.config.Config
        Those whose roofs are drawn: the array, and the bus with a beat per cycle in both directions.
    title : str

    Returns
    -------
    bytes
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    low = min(point[2] for point in points) / 4
    high = max(point[2] for point in points) * 4
    for color, (name, config) in zip(_WORK_COLORS * len(configs), configs.items(), strict=False):
        slope = 2 * config.bus_bytes
        ridge = max(config.peak_macs / slope, low)
        axes.plot([low, ridge, max(high, ridge)], [low * slope, config.peak_macs, config.peak_macs], color=color,
                  linewidth=1, label=f"{name}: {config.peak_macs} MACs, bus of {8 * config.bus_bytes} bits")
        own = [point for point in points if point[1] == name]
        axes.plot([point[2] for point in own], [point[3] for point in own], "o", color=color)
        for label, _, intensity, rate in own:
            axes.annotate(label, (intensity, rate), textcoords="offset points", xytext=(5, -9), fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="Useful MACs per byte on the bus", ylabel="Useful MACs per cycle")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=8)
    return _png(figure)


def _patch(color):
    from matplotlib.patches import Patch

    return Patch(facecolor=color, edgecolor="0.6", linewidth=0.5)


def _png(figure):
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110, metadata={"Software": None})
    return png.getvalue()
