"""Fast feedforward networks: the paper's tables beside what runs here measured (Belcak & Wattenhofer, 2308.14711)."""

import math

import numpy as np
import pandas as pd

from switchyard_compare import mean_and_interval, with_interval
from switchyard_figures import figure, line_style, no_data
from switchyard_results import open_benches

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
MEASURES = ["memorisation_accuracy", "memorisation_epoch", "generalisation_accuracy", "generalisation_epoch"]


def measures_table(runs):
    """A row a finished run that has the measures: width, leaf (0: dense), M_A and G_A in %, their epochs, configuration."""
    rows = []
    for run in runs:
        values = {name: float(run.attributes.get(name) or math.nan) for name in MEASURES}
        if run.attributes.get("status") != "finished" or math.isnan(values["generalisation_accuracy"]):
            continue
        ffn = {key: run.config[f"ffn.{key}"] for key in ("kind", "hidden", "leaf", "depth", "experts")}
        width = ffn["hidden"]
        if ffn["kind"] == "moe":
            width *= ffn["experts"]
        elif ffn["kind"] == "fff" and ffn["depth"]:
            width = ffn["leaf"] * 2 ** ffn["depth"]
        rows.append({"run": run.name, "kind": ffn["kind"], "width": width,
                     "leaf": ffn["leaf"] if ffn["kind"] == "fff" else 0,
                     "M_A": 100 * values["memorisation_accuracy"], "G_A": 100 * values["generalisation_accuracy"],
                     "M_A epoch": values["memorisation_epoch"], "G_A epoch": values["generalisation_epoch"], **run.config})
    return pd.DataFrame(rows)


def of_model(table, model, data):
    return table if table.empty else table[(table["model.kind"] == model) & (table["data.kind"] == data)]


def best_and_mean(values):
    """"86.31; 85.90 ± 0.40 (3)": the best seed, and the mean with its 95 % interval."""
    values = values.dropna()
    return f"{values.max():.2f}; {with_interval(*mean_and_interval(values))}" if len(values) else "-"


def table_1(table):
    """The cells that were measured: published and measured, best of the seeds as the paper has it, and the mean."""
    rows = []
    found = of_model(table, "mlp", "fashion-mnist")
    for (width, leaf), (memorised, generalised, _) in TABLE_1.items():
        runs = found[(found["width"] == width) & (found["leaf"] == leaf) & (found["kind"] != "moe")] if len(found) else found
        if len(runs):
            rows.append({"width": width, "leaf": leaf or "dense", "M_A published": memorised,
                         "M_A here: best; mean": best_and_mean(runs["M_A"]), "G_A published": generalised,
                         "G_A here: best; mean": best_and_mean(runs["G_A"]),
                         "best G_A less the published": round(runs["G_A"].max() - generalised, 2)})
    return pd.DataFrame(rows)


def table_2(table):
    rows = []
    found = of_model(table, "mlp", "cifar10")
    for (width, kind), (memorised, memorised_epoch, generalised, generalised_epoch) in TABLE_2.items():
        runs = found[(found["width"] == width) & (found["kind"] == kind)] if len(found) else found
        if len(runs):
            rows.append({"width": width, "network": kind, "M_A (ETT) published": f"{memorised} ({memorised_epoch})",
                         "M_A here": best_and_mean(runs["M_A"]), "ETT here": f"{runs['M_A epoch'].mean():.0f}",
                         "G_A (ETT) published": f"{generalised} ({generalised_epoch})",
                         "G_A here": best_and_mean(runs["G_A"]), "ETT of G_A here": f"{runs['G_A epoch'].mean():.0f}"})
    return pd.DataFrame(rows)


def table_3(table):
    rows = []
    found = of_model(table, "vit", "cifar10")
    for leaf, (_, generalised) in TABLE_3.items():
        runs = found[(found["width"] == 128) & (found["leaf"] == leaf) & (found["kind"] != "moe")] if len(found) else found
        if len(runs):
            rows.append({"leaf": leaf or "dense", "G_A published": generalised, "G_A here": best_and_mean(runs["G_A"])})
    return pd.DataFrame(rows)


def accuracy_figure(table):
    """M_A and G_A against the leaf's width, a line for each training width; the published best of 10 hollow."""
    drawn, axes = figure(1, 2, sharex=True)
    found = of_model(table, "mlp", "fashion-mnist")
    found = found[found["kind"] == "fff"] if len(found) else found
    for axis, measure, place in ((axes[0, 0], "M_A", 0), (axes[0, 1], "G_A", 1)):
        if found.empty:
            no_data(axis, "no finished run of a tree on Fashion-MNIST")
            continue
        lowest = 100.0
        for index, (width, runs) in enumerate(found.groupby("width")):
            style = line_style(index, markers=True)
            spread = runs.groupby("leaf")[measure].apply(lambda values: pd.Series(mean_and_interval(values))).unstack()
            axis.errorbar(spread.index, spread[0], yerr=spread[1].fillna(0), capsize=3, label=f"width {width}", **style)
            published = {leaf: value[place] for (wide, leaf), value in TABLE_1.items() if wide == width and leaf}
            axis.plot(published.keys(), published.values(), linestyle="", marker=style["marker"], markersize=7,
                      markerfacecolor="none", markeredgecolor=style["color"])
            lowest = min(lowest, spread[0].min(), *published.values())
        axis.set_ylim(max(lowest - 12, 0), 101)  # intervals of few seeds, some of which fail, may reach beyond
        axis.set_xscale("log", base=2)
        axis.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        axis.set_xlabel("hidden units of a leaf")
        axis.set_ylabel(f"{measure}, %")
    axes[0, 0].set_title("Memorisation: training split")
    axes[0, 1].set_title("Generalisation: test split")
    if len(found):
        axes[0, 1].legend(title="mean, 95 %; hollow: published, best of 10", fontsize=8, title_fontsize=8,
                          loc="lower right", ncols=2)
    return drawn


def speeds(folder):
    """Rows of every `bench inference --output` file below the folder: layers alone, on one thread."""
    tables = [table.assign(file=file.name, model=attributes["config"]["model.kind"], host=attributes["host"])
              for file, table, attributes in open_benches(folder, "inference")]
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    return table[(table["part"] == "layer") & (table["threads"] == 1)]


def published_speed_up(model, leaf):
    """At training width 128: Table 1 for a network by itself, Table 3 inside a vision transformer."""
    value = TABLE_1.get((128, leaf), (None,) * 3)[2] if model == "mlp" else TABLE_3.get(leaf, (None,))[0]
    return math.nan if value is None else value


def speed_table(folder):
    """At the largest batch: time, and speed-up over the dense network, measured in turn with it."""
    table = speeds(folder)
    if table.empty:
        return "no file of `bench inference --output`"
    largest = table[table["batch"] == table.groupby("file")["batch"].transform("max")]
    shown = largest[["file", "model", "network", "leaf", "batch", "speed_up", "speed_up_least"]].copy()
    shown.insert(5, "microseconds", (1e6 * largest["seconds"]).round(1))
    shown["published (width 128)"] = [published_speed_up(row["model"], row["leaf"]) if row["network"] == "fff" else math.nan
                                      for _, row in largest.iterrows()]
    return shown.round(2)


def speed_figure(folder):
    """Speed-up over dense by batch size, a line for each leaf."""
    drawn, axes = figure()
    axis, table = axes[0, 0], speeds(folder)
    trees = table[table["network"] == "fff"] if len(table) else table
    if trees.empty:
        no_data(axis, "no file of `bench inference --output`")
        return drawn
    for index, ((file, leaf), rows) in enumerate(trees.groupby(["file", "leaf"])):
        axis.plot(rows["batch"], rows["speed_up"], label=f"{file}, leaf {leaf}", **line_style(index, markers=True))
    axis.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axis.set_xscale("log", base=2)
    axis.set_xlabel("batch: tokens")
    axis.set_ylabel("speed-up over dense")
    axis.legend(fontsize=8)
    return drawn


def entropy_figure(runs):
    """The mean entropy of the nodes of each level over time, of the first of the runs that has a tree."""
    drawn, axes = figure()
    axis = axes[0, 0]
    for run in runs:
        nodes = run.tree_nodes()
        if len(nodes):
            break
    else:
        no_data(axis, "no run with a tree")
        return drawn
    nodes["level"] = np.log2(nodes["node"] + 1).astype(int)
    for level, values in nodes.groupby("level"):
        mean = values.groupby("step")["entropy"].mean()
        axis.plot(mean.index, mean, label=f"level {level}", **line_style(level))
    axis.axhline(0.1, color="black", linewidth=0.8, linestyle=":")
    axis.set_yscale("log")
    axis.set_xlabel("step")
    axis.set_ylabel("entropy of a choice, nats")
    axis.set_title(f"{run.name}: nodes harden; below 0.1 rounding them costs little")
    axis.legend(ncols=2, fontsize=8)
    return drawn
