"""The pictures of the growth row: one small doubly logarithmic chart for each verb."""

from pathlib import Path

FOLDER = Path("docs/pictures")
_COLUMNS = 6
_QUIET, _LINEAR, _MISSED = "#2f6f9f", "#b07a1e", "#b3261e"

Curve = tuple[str, str, dict[int, float], float]
"""A verb's name, why it may be linear, its seconds at each size, its exponent."""


def growth(file: str, title: str, curves: list[Curve], limit: float) -> str:
    """Draws the costs of verbs by size; returns the name of the file."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "perdure"
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["font.family"] = "sans-serif"
    from matplotlib import pyplot as plt

    rows = -(-len(curves) // _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(15, 2.1 * rows + 0.9), sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, (name, linear, costs, exponent) in zip(axes.flat, curves, strict=False):
        color = _LINEAR if linear else _MISSED if exponent > limit else _QUIET
        axis.set_visible(True)
        axis.loglog(
            list(costs), [cost * 1e6 for cost in costs.values()], "o-", color=color, markersize=3.5, linewidth=1.6
        )
        axis.set_title(name, fontsize=8.5, loc="left", color="#222222")
        axis.text(0.04, 0.9, f"n^{exponent:.2f}", transform=axis.transAxes, fontsize=8.5, color=color, va="top")
        axis.grid(visible=True, color="#dddddd", linewidth=0.5)
        axis.tick_params(labelsize=7.5, which="both", length=2, labelbottom=True)
        axis.minorticks_off()
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    figure.text(
        0.01, 0.008, "blue: at most log n; brown: linear in its scope by contract; red: grows faster than it may",
        fontsize=9, color="#444444",
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0.03, 1, 0.985))
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / f"{file}.svg", metadata={"Date": None})
    plt.close(figure)
    return f"{file}.svg"
