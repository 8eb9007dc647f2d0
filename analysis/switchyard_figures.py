"""How the figures look: sizes for a notebook's width, colours that colour-blind readers tell apart."""

import matplotlib.pyplot as plt

# Okabe and Ito's palette; lines also differ in dash and marker.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (1, 1))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
SHARE_COLOURS = "PuOr_r"  # of a share of the load, from 0 (no token) to 2: white in the middle is even
WIDTH = 9.0  # inches

STYLE = {"font.size": 10, "axes.titlesize": 11, "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3,
         "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "figure.dpi": 100,
         "figure.constrained_layout.use": True, "lines.linewidth": 1.6}


def figure(rows=1, columns=1, height=3.2, width=WIDTH, **options):
    """(figure, array of axes (rows, columns)); a notebook shows the figure that it is given, once."""
    plt.rcParams.update(STYLE)
    drawn, axes = plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False, **options)
    plt.close(drawn)
    return drawn, axes


def line_style(index, markers=False):
    style = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
    return {**style, "marker": MARKERS[index % len(MARKERS)], "markersize": 5} if markers else style


def whole_ticks(axis):
    """Steps and epochs are whole numbers."""
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def legend_beside(axis, title=None, handles_and_labels=()):
    """Right of the axis: never on the data."""
    axis.legend(*handles_and_labels, loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=8, title=title, title_fontsize=8)


def no_data(axis, words):
    axis.text(0.5, 0.5, words, ha="center", va="center", transform=axis.transAxes, wrap=True)
    axis.set_axis_off()
