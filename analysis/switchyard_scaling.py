"""Strong and weak scaling of runs that differ in their ranks, and where the time of a step goes."""

import math

import numpy as np
import pandas as pd

from switchyard_compare import LAYOUT_KEYS, SEED
from switchyard_figures import figure, line_style, no_data
from switchyard_loggp import Network, predict, step_of

# The network of the extrapolation: assumed figures. A node's link, and how many ranks share it.
RANKS_PER_NODE = 8
NETWORK = Network("InfiniBand HDR (200 Gb/s a node)", latency=2e-6, gap=0.3e-6, byte=RANKS_PER_NODE / 23e9)
MOST_RANKS = 1024

PARTS = ["compute", "exchange", "reduce", "wait"]
MEASURED = ["seconds", "low", "high", *PARTS]
PART_COLOURS = [line_style(index)["color"] for index in (0, 1, 2, 4)]
# Keys that may follow the batch where every rank's part of it stays the same.
WEAK_KEYS = ("train.batch", "train.lr", "train.warmup_steps", "data.limit", "data.synthetic_samples")
LENGTH_KEYS = ("run.epochs", "run.steps", "train.schedule_epochs")


def scaling_table(runs):
    """A row a run: the configuration, ranks, threads, and medians of a step's seconds and parts, its start left out."""
    rows = []
    for run in runs:
        steps = run.steps()
        steps = steps.iloc[min(len(steps) // 5, 5):]
        if steps.empty:
            continue
        seconds = steps["seconds"]
        rows.append({"run": run.name, **{name: int(run.attributes.get(name) or 0) for name in
                                         ("ranks", "threads", "parameters_stored", "parameters_active")},
                     "data": run.attributes.get("data", ""), "mixtures": len(run.blocks()), "seconds": seconds.median(),
                     "low": seconds.quantile(0.25), "high": seconds.quantile(0.75),
                     **{part: steps[f"seconds_{part}"].median() for part in PARTS}, **run.config})
    return pd.DataFrame(rows)


def groups(table, weak):
    """[(words, runs by rank)] of runs that differ in ranks; weak: with the batch in proportion, else the same batch.

    Of runs on equally many ranks those count that share the experts out over the most.
    """
    if table.empty:
        return []
    table = table.assign(part=table["train.batch"] / table["ranks"])
    left_out = {*LAYOUT_KEYS, SEED, *LENGTH_KEYS, *(WEAK_KEYS if weak else ())}
    keys = [key for key in table if "." in key and key not in left_out] + ["threads"] + (["part"] if weak else [])
    found = []
    for _, group in table.groupby(keys, dropna=False):
        group = group[group["parallel.experts"] == group.groupby("ranks")["parallel.experts"].transform("max")]
        by_rank = group.groupby("ranks").agg({name: "mean" if name in MEASURED else "first"
                                              for name in group.columns.drop("ranks")}).reset_index()
        if len(by_rank) > 1 and (not weak or by_rank["train.batch"].nunique() > 1):
            first = by_rank.iloc[0]
            batch = f"{first['part']:g} samples a rank" if weak else f"batch {first['train.batch']:g}"
            kind = first["ffn.router"] if first["ffn.kind"] == "moe" else "dense"
            found.append((f"{'weak' if weak else 'strong'} scaling, {kind}, {batch}", by_rank))
    return found


def efficiency(by_rank, weak):
    """Of the fewest ranks' speed a rank: strong T1 W1 / (TW W), weak T1 / TW."""
    first = by_rank.iloc[0]
    work = 1 if weak else by_rank["ranks"] / first["ranks"]
    return first["seconds"] / (by_rank["seconds"] * work)


def efficiency_table(by_rank, weak):
    shown = by_rank[["ranks", "threads", "parallel.experts", "train.batch"]].astype(int)
    milliseconds = {f"{name}, ms": (1e3 * by_rank[name]).round(2) for name in ("seconds", *PARTS)}
    milliseconds["step, ms"] = milliseconds.pop("seconds, ms")
    return shown.assign(**{"step, ms": milliseconds.pop("step, ms"), **milliseconds,
                           "samples/s": (by_rank["train.batch"] / by_rank["seconds"]).round(0),
                           "efficiency, %": (100 * efficiency(by_rank, weak)).round(1)})


def scaling_figure(words, by_rank, weak, cores):
    """A step's parts, speed against ideal, efficiency. Grey: more ranks and threads than cores."""
    drawn, axes = figure(1, 3, height=3.4)
    bars, speed, share = axes[0]
    ranks = by_rank["ranks"].to_numpy()
    places = np.arange(len(ranks))
    stacked_parts(bars, places, by_rank)
    bars.errorbar(places, 1e3 * by_rank["seconds"], fmt="none", color="black", capsize=3, linewidth=1,
                  yerr=1e3 * np.stack([by_rank["seconds"] - by_rank["low"], by_rank["high"] - by_rank["seconds"]]))
    bars.set(title=words, xlabel="ranks", ylabel="median step, ms (bar: quartiles)", xticks=places)
    bars.set_xticklabels(ranks)
    bars.set_ylim(0, 1.35 * bars.get_ylim()[1])  # room for the legend
    bars.legend(fontsize=8, ncol=2, loc="upper left")
    samples = by_rank["train.batch"] / by_rank["seconds"]
    speed.plot(ranks, samples, label="measured", **line_style(0, markers=True))
    speed.plot(ranks, samples.iloc[0] * ranks / ranks[0], label="ideal", color="black", linestyle=":")
    speed.set(title="Speed", ylabel="samples/s", ylim=(0, None))
    speed.legend(fontsize=8)
    share.plot(ranks, 100 * efficiency(by_rank, weak), **line_style(0, markers=True))
    share.axhline(100, color="black", linestyle=":")
    share.set(title="Efficiency", ylabel="%", ylim=(0, 105 * max(1, *efficiency(by_rank, weak))))
    for axis in (speed, share):
        axis.set_xscale("log", base=2)
        axis.set(xlabel="ranks", xticks=ranks)
        axis.set_xticklabels(ranks)
        if (crowded := ranks[ranks * by_rank["threads"] > cores]).size:
            axis.axvspan(crowded[0] / 2**0.5, ranks[-1] * 2**0.25, color="grey", alpha=0.15, linewidth=0)
            axis.text(0.98, 0.02, f"more than {cores} cores", ha="right", transform=axis.transAxes, fontsize=8)
    return drawn


def stacked_parts(axis, places, table, width=0.6):
    bottom = np.zeros(len(places))
    for part, colour in zip(PARTS, PART_COLOURS):
        if part in table:
            axis.bar(places, 1e3 * table[part], width, bottom=bottom, label=part, color=colour, edgecolor="white",
                     linewidth=0.5)
            bottom += 1e3 * table[part].to_numpy()


def fit_figure(bench):
    """The exchange's seconds against bytes, measured (fastest steps) and by the fitted model."""
    drawn, axes = figure(height=3.6)
    axis = axes[0, 0]
    for index, (ranks, rows) in enumerate(bench.groupby("ranks")):
        rows, style = rows.sort_values("bytes"), line_style(index, markers=True)
        axis.plot(rows["bytes"], 1e6 * rows["seconds_least"], label=f"{ranks} ranks, measured",
                  **style | {"linestyle": ""})
        axis.plot(rows["bytes"], 1e6 * rows["predicted"], label=f"{ranks} ranks, model", **line_style(index))
    axis.set(xscale="log", yscale="log", xlabel="bytes that the busiest rank sends, there and back",
             ylabel="microseconds an exchange", title="Exchange forward: counts, rows, ids, rows back")
    axis.legend(ncol=2, fontsize=8)
    return drawn


def check_table(by_rank, network, cores):
    """Predicted beside measured steps, in ms. The run with the fewest ranks gives the compute of a microbatch."""
    step, rows = step_of(by_rank.iloc[0], cores), []
    for _, row in by_rank.iterrows():
        parts = predict(step, network, row["ranks"], int(row["parallel.experts"]), cores / row["threads"],
                        row["train.batch"] // row["train.microbatch"])
        predicted = sum(parts.values())
        rows.append({"ranks": row["ranks"], "experts over": int(row["parallel.experts"]),
                     "step measured, ms": 1e3 * row["seconds"], "step predicted, ms": 1e3 * predicted,
                     "measured / predicted": row["seconds"] / predicted,
                     "exchange measured": 1e3 * row["exchange"], "exchange predicted": 1e3 * parts["exchange"],
                     "reduce measured": 1e3 * row["reduce"], "reduce predicted": 1e3 * parts["reduce"],
                     "wait measured": 1e3 * row["wait"]})
    return pd.DataFrame(rows).round(2)


def to_extrapolate(groups, cores):
    """(words, Step) of the first group with a mixture, whose tokens travel; without one, of the first."""
    mixtures = [group for group in groups if group[2].iloc[0]["ffn.kind"] == "moe"]
    _, words, runs = (mixtures or groups)[0]
    return words, step_of(runs.iloc[0], cores)


def extrapolate(step, network, most_ranks):
    """Weak scaling by the model: each rank has all microbatches of the step; experts over as many ranks as can be."""
    rows, ranks = [], 1
    while ranks <= most_ranks:
        over = math.gcd(ranks, step.experts)  # ranks: a power of two
        parts = predict(step, network, ranks, over, microbatches=step.microbatches * ranks)
        rows.append({"ranks": ranks, "experts over": over, **parts, "seconds": sum(parts.values())})
        ranks *= 2
    table = pd.DataFrame(rows)
    return table.assign(efficiency=table["seconds"].iloc[0] / table["seconds"])


def extrapolation_figure(table, network):
    drawn, axes = figure(1, 2, height=3.8)
    bars, share = axes[0]
    places = np.arange(len(table))
    stacked_parts(bars, places, table.drop(columns="compute"), 0.8)
    bars.set(title=f"Communication in a step (compute: {1e3 * table['compute'].iloc[0]:.1f} ms)", ylabel="ms")
    bars.legend(fontsize=8, loc="upper left")
    share.plot(places, 100 * table["efficiency"], **line_style(0, markers=True))
    share.set(title="Weak-scaling efficiency", ylabel="%", ylim=(0, 105))
    for axis in (bars, share):
        axis.set(xlabel="ranks", xticks=places)
        axis.set_xticklabels(table["ranks"], rotation=45)
    drawn.suptitle(f"{network.name}: by the model, not measured", fontsize=11)
    return drawn


def assumptions(step, network, ranks_per_node):
    return [
        f"{network.words()} a rank; {ranks_per_node} ranks a node share its link. Assumed figures of such a "
        "network, not measured here.",
        f"Every rank computes {step.microbatches} microbatches of {step.tokens} tokens a step, each in "
        f"{1e3 * step.compute:.2f} ms as measured here, at any number of ranks.",
        "All messages cross the network, also those between ranks of a node; the load of the experts is even; no "
        "message slows another down beyond its share of the link; nothing is computed while tokens or gradients travel "
        "(parallel.overlap = off).",
        "Ranks never wait for slower ones: noise, uneven load and file access are left out, so this is a bound from "
        "above on the efficiency.",
    ]
