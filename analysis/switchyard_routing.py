"""Where the tokens went: heat maps of the load over time, one run's curves, collapse and what cures it."""

import textwrap

import numpy as np
import pandas as pd

from switchyard_figures import figure, line_style, no_data, SHARE_COLOURS, whole_ticks

MOST_BINS = 120  # of time, in a heat map
TITLE_CHARACTERS = 76  # that fit across the figure, of the names of its runs


def one_of_each(runs, most):
    """The first run of each router and number of experts, then the others, as many as asked for."""
    first = {}
    for run in runs:
        first.setdefault((run.config["ffn.router"], run.config["ffn.experts"]), run)
    return [*first.values(), *(run for run in runs if run not in first.values())][:most]


def load_heat_maps(runs):
    """A map for each block (down) and run (across): an expert's share of the tokens over the steps, 1 is even."""
    runs = [run for run in runs if run.has_routing()]
    if not runs:
        drawn, axes = figure(height=1)
        no_data(axes[0, 0], "no run with a mixture of experts")
        return drawn
    blocks = max(len(run.blocks()) for run in runs)
    drawn, axes = figure(blocks, len(runs), height=1.3 if blocks > 2 else 1.9, sharex="col")
    image = None
    for column, run in enumerate(runs):
        routing = run.routing()
        for row in range(blocks):
            axis = axes[row, column]
            if row >= len(run.blocks()) or routing.empty:
                axis.set_axis_off()
                continue
            block = run.blocks()[row]
            image = heat_map(axis, routing[routing["block"] == block])
            if column == 0:
                axis.set_ylabel(f"block {block}\nexpert")
            elif block != runs[0].blocks()[min(row, len(runs[0].blocks()) - 1)]:
                axis.set_ylabel(f"block {block}")
        axes[0, column].set_title(textwrap.fill(run.name, max(8, TITLE_CHARACTERS // len(runs))))
        axes[len(run.blocks()) - 1, column].set_xlabel("step")
        axes[len(run.blocks()) - 1, column].tick_params(labelbottom=True)
    if image is not None:
        bar = drawn.colorbar(image, ax=axes, label="share of the tokens (1 = even)", extend="max", extendfrac=0.03,
                            aspect=7 * drawn.get_figheight())
        bar.set_ticks([0, 0.5, 1, 1.5, 2])
    return drawn


def heat_map(axis, routing):
    shares = routing.pivot(index="expert", columns="step", values="share")
    steps = shares.columns.to_numpy()
    bins = np.array_split(np.arange(len(steps)), min(len(steps), MOST_BINS))
    means = np.stack([shares.to_numpy()[:, bin].mean(axis=1) for bin in bins], axis=1)
    extent = (steps[0] - 0.5, steps[-1] + 0.5, len(shares) - 0.5, -0.5)
    image = axis.imshow(means, aspect="auto", interpolation="nearest", cmap=SHARE_COLOURS, vmin=0, vmax=2,
                        extent=extent)
    axis.grid(False)
    whole_ticks(axis)
    axis.set_yticks(range(0, len(shares), max(1, len(shares) // 4)))
    return image


def worst_over_blocks(run):
    """A row for each step: of the block that is worst, and the mean entropy of the load."""
    layers = run.routing_layers().groupby("step")
    return layers.agg(load_cv=("load_cv", "max"), max_over_mean=("max_over_mean", "max"),
                      dead_experts=("dead_experts", "max"), load_entropy=("load_entropy", "mean")).reset_index()


def collapse_figure(runs):
    """The fullest expert and the experts without a token in the worst block, and the loss, over the steps."""
    drawn, axes = figure(1, 3, height=3.6)
    for index, run in enumerate(runs):
        worst, steps, style = worst_over_blocks(run), run.steps(), line_style(index)
        axes[0, 0].plot(worst["step"], smooth(worst["max_over_mean"]), **style)
        axes[0, 1].plot(worst["step"], 100 * smooth(worst["dead_experts"]), label=run.name, **style)
        axes[0, 2].plot(steps["step"], smooth(steps["loss"]), **style)
    titles = ["Fullest expert", "Experts without a token", "Training loss"]
    labels = ["times an even share, worst block", "% of the worst block's", "cross entropy, nats"]
    for axis, title, label in zip(axes[0], titles, labels):
        axis.set(title=title, xlabel="step", ylabel=label)
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 1].set_ylim(-3, 103)
    axes[0, 1].legend(fontsize=8, loc="center right")
    return drawn


def smooth(values):
    """Mean of the last rows, about a fortieth of the run."""
    return values.rolling(max(1, len(values) // 40), min_periods=1).mean()


def collapse_table(runs):
    """The last tenth of each run."""
    rows = []
    for run in runs:
        worst, evaluations = worst_over_blocks(run), run.evaluations()
        last = worst.tail(max(1, len(worst) // 10)).mean()
        accuracy = round(100 * evaluations["accuracy"].iloc[-1], 2) if len(evaluations) else None
        rows.append({"run": run.name, "router": run.config["ffn.router"],
                     "fullest expert, times even": round(last["max_over_mean"], 2),
                     "load CV": round(last["load_cv"], 2),
                     "experts without a token, %": round(100 * last["dead_experts"], 1),
                     "test accuracy, %": accuracy})
    return pd.DataFrame(rows)


def collapse_words(table):
    """What the table says, a sentence for each run. Collapsed: the fullest expert takes more than twice its share."""
    words = []
    for _, row in table.iterrows():
        fullest, dead = row["fullest expert, times even"], row["experts without a token, %"]
        state = "collapsed" if fullest > 2 else "uneven" if fullest > 1.5 else "balanced"
        words.append(f"{row['run']} ({row['router']}): {state} at its end: the fullest expert of the worst block takes "
                     f"{fullest:.2f} times an even share, {dead:.0f} % of that block's experts get no token.")
    return words


def run_figure(run):
    """Loss, accuracy, speed, and where the time goes, of one run as far as it is."""
    steps, evaluations = run.steps(), run.evaluations()
    drawn, axes = figure(2, 2, height=2.8)
    if steps.empty:
        for axis in axes.flat:
            no_data(axis, "no step yet")
        return drawn
    loss, accuracy, speed, time = axes.flat
    loss.plot(steps["step"], steps["loss"], alpha=0.3, **line_style(0))
    loss.plot(steps["step"], smooth(steps["loss"]), label="training", **line_style(0))
    loss.plot(evaluations["step"], evaluations["loss"], label="test", **line_style(1, markers=True))
    loss.set(title="Cross entropy", ylabel="nats")
    loss.legend()
    accuracy.plot(steps["step"], 100 * smooth(steps["accuracy"]), label="training", **line_style(0))
    accuracy.plot(evaluations["step"], 100 * evaluations["accuracy"], label="test", **line_style(1, markers=True))
    accuracy.set(title="Accuracy", ylabel="%")
    speed.plot(steps["step"], smooth(steps["samples_per_second"]), color=line_style(2)["color"])
    speed.set(title="Speed, all ranks together", xlabel="step", ylabel="samples/s", ylim=(0, None))
    parts = ["compute", "exchange", "reduce", "wait"]
    shares = [smooth(steps[f"seconds_{part}"] / steps["seconds"]) * 100 for part in parts]
    time.stackplot(steps["step"], shares, labels=parts, colors=[line_style(i)["color"] for i in (0, 1, 2, 4)])
    time.set(title="Where the time goes (rank 0)", xlabel="step", ylabel="% of a step", ylim=(0, 100))
    time.legend(loc="lower left", ncol=2, frameon=True)
    for axis in axes.flat:
        whole_ticks(axis)
    return drawn
