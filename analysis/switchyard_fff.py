"""Fast feedforward networks: the paper's tables beside what runs here measured (Belcak & Wattenhofer, 2308.14711)."""

import math

import numpy as np
import pandas as pd

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from switchyard_compare import mean_and_interval, with_interval
from switchyard_figures import figure, legend_beside, line_style
from switchyard_results import open_benches
from switchyard_studies import runs_of_study, training_width

# Table 1, Fashion-MNIST, best of 10 runs: (training width, leaf): (M_A %, G_A %, speed-up); leaf 0: the dense network.
TABLE_1 = {
    (16, 0): (91.0, 86.4, 1.00), (32, 0): (94.8, 87.8, 1.00), (64, 0): (98.5, 89.0, 1.00), (128, 0): (99.3, 89.6, 1.00),
    (16, 8): (86.7, 84.2, 1.34), (32, 8): (87.8, 85.2, 1.44), (64, 8): (88.8, 85.2, 2.02), (128, 8): (90.5, 86.1, 3.78),
    (16, 4): (86.4, 83.3, 1.27), (32, 4): (86.6, 84.5, 1.32), (64, 4): (89.1, 85.1, 2.02), (128, 4): (89.0, 85.4, 3.41),
    (16, 2): (84.5, 83.0, 1.24), (32, 2): (85.4, 82.9, 1.34), (64, 2): (87.2, 84.1, 2.01), (128, 2): (87.3, 84.3, 3.28),
    (16, 1): (79.7, 78.4, 1.04), (32, 1): (79.4, 77.8, 1.29), (64, 1): (79.9, 79.5, 1.90), (128, 1): (78.7, 77.7, 2.92)}
# Table 2, CIFAR-10: (training width, kind): (M_A %, its ETT, G_A %, its ETT), epochs elapsed when it was observed.
TABLE_2 = {
    (64, "dense"): (87.2, 307, 49.3, 55), (64, "moe"): (57.8, 5354, 29.4, 4880), (64, "fff"): (85.8, 302, 45.9, 22),
    (128, "dense"): (95.5, 200, 51.5, 46), (128, "moe"): (62.0, 6074, 33.6, 938), (128, "fff"): (90.1, 305, 45.5, 22),
    (256, "dense"): (99.9, 105, 52.0, 48), (256, "moe"): (62.4, 2001, 33.9, 372), (256, "fff"): (91.2, 244, 44.4, 17),
    (512, "dense"): (99.9, 85, 52.4, 31), (512, "moe"): (65.4, 3834, 34.5, 315), (512, "fff"): (96.2, 175, 43.7, 10),
    (1024, "dense"): (99.9, 82, 53.0, 21), (1024, "moe"): (65.3, 1575, 35.2, 327),
    (1024, "fff"): (96.0, 180, 41.3, 9)}
# Table 3, CIFAR-10, training width 128: leaf: (speed-up, G_A %); leaf 0: dense.
TABLE_3 = {0: (1.00, 84.7), 32: (2.44, 83.6), 16: (2.80, 83.2), 8: (3.29, 82.8), 4: (3.39, 81.6), 2: (3.47, 80.1),
           1: (3.93, 79.8)}
MEASURES = [("M_A", "memorisation"), ("G_A", "generalisation")]


def measures_table(runs):
    """A row a run: kind, width (training width), leaf (0: dense), M_A and G_A in %, their epochs."""
    rows = []
    for run in runs:
        kind = run.config["ffn.kind"]
        row = {"kind": kind, "width": training_width(run.config), "leaf": run.config["ffn.leaf"] if kind == "fff" else 0}
        for name, attribute in MEASURES:
            row[name] = 100 * float(run.attributes.get(f"{attribute}_accuracy") or math.nan)
            row[f"{name} epoch"] = float(run.attributes.get(f"{attribute}_epoch") or math.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def best_and_mean(values):
    """"86.31; 85.90 ± 0.40 (3)": the best seed, and the mean with its 95 % interval."""
    values = values.dropna()
    return f"{values.max():.2f}; {with_interval(*mean_and_interval(values))}" if len(values) else "-"


def table_1(runs):
    """The cells that were measured: published and measured, best of the seeds as the paper has it, and the mean."""
    rows, found = [], measures_table(runs)
    for (width, leaf), (memorised, generalised, _) in TABLE_1.items():
        own = found[(found["width"] == width) & (found["leaf"] == leaf)]
        if len(own):
            rows.append({"width": width, "leaf": leaf or "dense", "M_A published": memorised,
                         "M_A here: best; mean": best_and_mean(own["M_A"]), "G_A published": generalised,
                         "G_A here: best; mean": best_and_mean(own["G_A"]),
                         "best G_A less the published": round(own["G_A"].max() - generalised, 2)})
    return pd.DataFrame(rows)


def table_2(runs):
    rows, found = [], measures_table(runs)
    for (width, kind), (memorised, memorised_epoch, generalised, generalised_epoch) in TABLE_2.items():
        own = found[(found["width"] == width) & (found["kind"] == kind)]
        if len(own):
            rows.append({"width": width, "network": kind, "M_A (ETT) published": f"{memorised} ({memorised_epoch})",
                         "M_A here": best_and_mean(own["M_A"]), "ETT here": f"{own['M_A epoch'].mean():.0f}",
                         "G_A (ETT) published": f"{generalised} ({generalised_epoch})",
                         "G_A here": best_and_mean(own["G_A"]), "ETT of G_A here": f"{own['G_A epoch'].mean():.0f}"})
    return pd.DataFrame(rows)


def table_3(runs):
    rows, found = [], measures_table(runs)
    for leaf, (_, generalised) in TABLE_3.items():
        own = found[found["leaf"] == leaf]
        if len(own):
            rows.append({"leaf": leaf or "dense", "G_A published": generalised, "G_A here": best_and_mean(own["G_A"])})
    return pd.DataFrame(rows)


TABLES = [("Table 1: Fashion-MNIST", "fff-table1", table_1),
          ("Table 2: CIFAR-10, beside a mixture of experts 16 wide", "fff-table2", table_2),
          ("Table 3: a vision transformer on CIFAR-10", "fff-table3", table_3)]


def generalisation_with_patience(evaluations, patience):
    """G_A in % if the run had ended after so many epochs without a better validation accuracy."""
    accuracy = evaluations["validation_accuracy"].to_numpy()
    best = 0
    for epoch in range(len(accuracy)):
        if accuracy[epoch] > accuracy[best]:
            best = epoch
        elif epoch - best >= patience:
            break
    return 100 * evaluations["accuracy"].iloc[best]


def patience_table(runs, patiences=(1, 2, 5, 10, 15)):
    """The best G_A of Table 1's cells under shorter patience than the runs had, which the paper does not name."""
    rows = {}
    for run in runs:
        cell = training_width(run.config), run.config["ffn.leaf"] if run.config["ffn.kind"] == "fff" else 0
        evaluations = run.evaluations()
        rows.setdefault(cell, []).append([generalisation_with_patience(evaluations, patience)
                                          for patience in patiences])
    table = [{"width": width, "leaf": leaf_name(leaf), "seeds": len(rows[width, leaf]), "published": published,
              **{f"patience {patience}": round(best, 1)
                 for patience, best in zip(patiences, np.max(rows[width, leaf], axis=0))}}
             for (width, leaf), (_, published, _) in TABLE_1.items() if (width, leaf) in rows]
    return pd.DataFrame(table)


def leaf_name(leaf):
    return str(leaf or "dense")


def measures_by_leaf(found):
    """(index, width, DataFrame by leaf: mean and half of the 95 % interval of M_A and G_A), the dense network last."""
    for index, (width, own) in enumerate(found.groupby("width")):
        rows = own.groupby("leaf")[["M_A", "G_A"]].agg([lambda values: mean_and_interval(values)[0],
                                                        lambda values: mean_and_interval(values)[1]])
        rows.columns = ["M_A", "M_A half", "G_A", "G_A half"]
        yield index, width, rows.loc[sorted(rows.index, key=lambda leaf: leaf or math.inf)].fillna(0)


def draw_measures(axis, measure, places, rows, label, style):
    """Points with their intervals at places; a line through those of the trees."""
    trees = [place for place, leaf in zip(places, rows.index) if leaf]
    axis.errorbar(places, rows[measure], yerr=rows[f"{measure} half"], capsize=3, label=label,
                  **{**style, "linestyle": ""})
    axis.plot(trees, rows[measure][:len(trees)], color=style["color"], linestyle=style["linestyle"])


def measures_axes():
    drawn, axes = figure(1, 2)
    for axis, (measure, _), title in zip(axes[0], MEASURES, ("Memorisation: training split",
                                                             "Generalisation: test split")):
        axis.set(ylabel=f"{measure}, %", title=title)
    return drawn, list(zip(axes[0], ("M_A", "G_A")))


def accuracy_figure(runs):
    """M_A and G_A against the leaf's width, a line for each training width; the published best of 10 hollow. `runs`:
    of fff-table1."""
    drawn, axes = measures_axes()
    found = measures_table(runs)
    leaves = sorted(found["leaf"].unique(), key=lambda leaf: leaf or math.inf)
    for place, (axis, measure) in enumerate(axes):
        lowest = 100.0
        for index, width, rows in measures_by_leaf(found):
            style = line_style(index, markers=True)
            places = [leaves.index(leaf) + 0.08 * index for leaf in rows.index]  # intervals beside each other
            draw_measures(axis, measure, places, rows, f"width {width}", style)
            published = [TABLE_1[width, leaf][place] for leaf in rows.index]
            axis.plot(places, published, linestyle="", marker=style["marker"], markersize=8,
                      markerfacecolor="none", markeredgecolor=style["color"])
            lowest = min(lowest, rows[measure].min(), *published)
        axis.set_ylim(max(lowest - 12, 0), 101)  # intervals of few seeds, some of which fail, may reach beyond
        axis.set_xticks(range(len(leaves)), map(leaf_name, leaves))
        axis.set_xlabel("hidden units of a leaf")
    legend_beside(axes[-1][0], "mean, 95 %; hollow:\npublished, best of 10")
    return drawn


def time_figure(runs, times):
    """M_A and G_A against the time of a batch's evaluation, for the training widths that have both; None where none has.
    `runs`: of fff-table1; `times`: of speeds()."""
    found = measures_table(runs)
    if len(times):
        times = times[(times["model"] == "mlp") & (times["data"] == "fashion-mnist")
                      & times["network"].isin(["dense", "fff"]) & times["width"].isin(found["width"])]
    if times.empty:
        return None
    widths, batch = set(times["width"]), times["batch"].max()
    times = times.assign(leaf=times["leaf"].where(times["network"] == "fff", 0))[times["batch"] == batch]
    microseconds = 1e6 * times.groupby(["width", "leaf"])["seconds_least"].median()
    drawn, axes = measures_axes()
    for axis, measure in axes:
        for index, width, rows in measures_by_leaf(found[found["width"].isin(widths)]):
            rows = rows[[(width, leaf) in microseconds.index for leaf in rows.index]]
            places = [microseconds[width, leaf] for leaf in rows.index]
            draw_measures(axis, measure, places, rows, f"width {width}", line_style(index, markers=True))
            for place, (leaf, row) in zip(places, rows.iterrows()):
                axis.annotate(leaf_name(leaf), (place, row[measure]), xytext=(5, 5), textcoords="offset points",
                              fontsize=8)
        axis.set_xscale("log")
        readable_ticks(axis.xaxis)
        axis.margins(x=0.15)
        axis.set_xlabel(f"microseconds of {batch} images, one thread")
    legend_beside(axes[-1][0], "mean, 95 %;\nby each point\nits leaf's width")
    return drawn


def readable_ticks(axis):
    """Of a logarithmic axis, one that spans a decade or less too."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def speeds(folder):
    """Rows of every `bench inference --output` file below the folder: layers alone, on one thread."""
    tables = []
    for file, table, attributes in open_benches(folder, "inference"):
        config = attributes["config"]
        width = training_width(config) if config["ffn.kind"] == "fff" else config["ffn.hidden"]  # its mixtures' too
        tables.append(table.assign(file=file.name, host=attributes["host"], model=config["model.kind"],
                                   data=config["data.kind"], width=width))
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    return table[(table["part"] == "layer") & (table["threads"] == 1)]


def published_speed_up(row):
    """At training width 128: Table 1 for a network by itself, Table 3 inside a vision transformer."""
    if row["network"] != "fff" or row["width"] != 128:
        return math.nan
    if row["model"] == "mlp":
        return TABLE_1.get((128, row["leaf"]), (math.nan,) * 3)[2]
    return TABLE_3.get(row["leaf"], (math.nan,))[0]


def speed_table(table):
    """At the largest batch: time, and speed-up over the dense network, measured in turn with it. `table`: of speeds()."""
    largest = table[table["batch"] == table.groupby("file")["batch"].transform("max")]
    shown = largest[["file", "model", "width", "network", "leaf", "batch", "speed_up", "speed_up_least"]].copy()
    shown.insert(6, "microseconds", (1e6 * largest["seconds"]).round(1))
    shown["published"] = largest.apply(published_speed_up, axis=1)
    return shown.round(2)


def speed_figure(table):
    """Speed-up over dense by batch size, a line for each leaf."""
    drawn, axes = figure()
    axis = axes[0, 0]
    for index, ((file, leaf), rows) in enumerate(table[table["network"] == "fff"].groupby(["file", "leaf"])):
        axis.plot(rows["batch"], rows["speed_up"], label=f"{file}, leaf {leaf}", **line_style(index, markers=True))
    axis.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axis.set_xscale("log", base=2)
    axis.set_xlabel("batch: tokens")
    axis.set_ylabel("speed-up over dense")
    legend_beside(axis)
    return drawn


def hardening_runs(runs):
    """Of runs of a study those of its widest trees; else the newest run that has a tree."""
    selected = [run for run in runs_of_study(runs, "fff-table1").runs if run.has_trees()]
    if not selected:
        others = [run for run in runs if run.has_trees()]
        return [max(others, key=lambda run: run.path.stat().st_mtime)] if others else []
    widest = max(training_width(run.config) for run in selected)
    return [run for run in selected if training_width(run.config) == widest]


def entropy_figure(runs):
    """The mean entropy of the nodes of each level over time, a panel for each width of leaves: mean over seeds, while all
    of them train. `runs`: of hardening_runs()."""
    by_leaf = {leaf: [run for run in runs if run.config["ffn.leaf"] == leaf]
               for leaf in sorted({run.config["ffn.leaf"] for run in runs}, reverse=True)}
    columns = min(len(by_leaf), 2)
    drawn, axes = figure(math.ceil(len(by_leaf) / columns), columns, sharex=True, sharey=True)
    for axis, (leaf, own) in zip(axes.flat, by_leaf.items()):
        common = pd.concat([level_entropies(run) for run in own], axis=1, join="inner")
        levels = common.T.groupby(level=0).mean().T
        some = np.unique(np.geomspace(1, len(levels), 300).astype(int)) - 1
        for level, entropies in levels.iloc[some].items():
            axis.plot(entropies.index, entropies, label=f"level {level}", **line_style(level))
        axis.axhline(0.1, color="black", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", yscale="log")
        readable_ticks(axis.yaxis)
        name = own[0].name if len(own) == 1 else f"{len(own)} seeds"
        axis.set_title(f"width {training_width(own[0].config)}, leaf {leaf}: {name}")
        axis.tick_params(labelbottom=True)
    for axis in axes.flat[len(by_leaf):]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("step")
    for axis in axes[:, 0]:
        axis.set_ylabel("entropy of a choice, nats")
    deepest = max(axes.flat, key=lambda axis: len(axis.get_legend_handles_labels()[1]))
    legend_beside(axes[0, -1], "root: level 0", deepest.get_legend_handles_labels())
    return drawn


def level_entropies(run):
    """By step, a column for each level of the tree: the mean entropy of its nodes over all blocks."""
    nodes = run.tree_nodes()
    levels = np.log2(nodes["node"] + 1).astype(int)
    return nodes.groupby(["step", levels])["entropy"].mean().unstack()
