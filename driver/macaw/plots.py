"""Pictures of a training run."""

import io

import numpy as np

__all__ = ["curves"]


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
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110, metadata={"Software": None})
    return png.getvalue()


def _smooth(x, y, window):
    """Means over ``window`` values, each at the last of them."""
    if len(y) < window:
        return x, y
    sums = np.cumsum(np.insert(y.astype(float), 0, 0))
    return x[window - 1:], (sums[window:] - sums[:-window]) / window
