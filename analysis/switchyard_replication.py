"""The study that this project repeats: its tables as published, beside what runs here measured, and what its logs show.

Published: "Enhanced MoE with random routing based on Transformer" (github gagi0911/hpml_final_project): CIFAR-10, a
vision transformer of 12 blocks, 300 wide; dense ("ViT"), with a learned top-1 gate ("MoE") and with one expert drawn for
each batch ("MoE & random routing"). One run each, no intervals.
"""

import textwrap

import pandas as pd

from switchyard_compare import (SEED, paired_differences, summarize, varying_keys, with_interval,
                                without_repeats)
from switchyard_figures import figure, line_style, no_data

VIT, MOE, RANDOM = "ViT", "MoE", "MoE & random routing"
MODELS = [VIT, MOE, RANDOM]
# (model, experts, batch): value. The parameters are those that one token uses.
PARAMETERS = {(VIT, 1): 12_798_490, (MOE, 4): 12_812_938, (RANDOM, 4): 12_798_490}
NUMBER_OF_EXPERTS = {(VIT, 1): 71.06, (RANDOM, 4): 72.18, (RANDOM, 8): 68.96}  # accuracy, %
BATCH_SIZE = {(VIT, 128): 62.33, (VIT, 256): 39.91, (VIT, 512): 30.53,  # seconds an epoch
              (RANDOM, 128): 62.01, (RANDOM, 256): 34.89, (RANDOM, 512): 28.18}
TRAINING_TIME = {(RANDOM, 256): 34.89, (MOE, 256): 57.78, (VIT, 256): 39.91}  # seconds an epoch
ACCURACY = {VIT: 71.06, MOE: 71.1, RANDOM: 72.18}  # %, batch 256, four experts

# The logs that were published with it: two processes, which train apart, print into each.
LOGS = pd.DataFrame(
    [["0vit rtx_2", "4 + average", 128, 42_353_242, 73.73, 70.60, "70.14 / 69.74", "198 of 350"],
     ["0vit rtx_4", "4 + average", 512, 42_353_242, 43.09, 74.98, "74.52 / 73.74", "350"],
     ["4vit rtx_2", "4 + average", 128, 42_353_242, 147.36, 71.54, "69.72 / 71.00", "350"],
     ["4vit rtx_4", "4 + average", 512, 42_353_242, 115.83, 71.50, "70.58 / 70.76", "350"],
     ["8vit rtx_2", "8 + average", 128, 71_907_994, 232.30, 69.86, "69.64 / 68.26", "100 of 350"],
     ["MOEvit rtx_2", "1 and a gate", 256, 12_812_938, 72.04, 73.24, "71.88 / 71.94", "350"]],
    columns=["log", "experts", "batch", "parameters", "median seconds an epoch", "best accuracy, %",
             "final accuracy, % (both processes)", "epochs done"])
LOG_FINDINGS = [
    "No log is that of a dense ViT, nor of random routing at batch 256: two of the README's three rows have no source. "
    "The MoE's log differs from its row (best 73.24, not 71.1; median 72.04 s, not 57.78).",
    "The best accuracy of all logs, 74.98, is of a run whose speed suggests one fixed expert and no average (inferred).",
    "The parameter count of the MoE's log is that of one feed-forward network and a gate per block: four real experts "
    "would store 34,979,002. Random routing's logs store the average as a fifth copy (42,353,242).",
    "Best and final accuracy differ by up to 1.8 points, the two processes by up to 1.4: as much as the differences "
    "claimed between models (1.1 points). Each process trained on 25,000 images of its own and tested on 5,000.",
    "The runs with eight experts and one of those with four stopped early (100 and 198 of 350 epochs), on a cosine "
    "schedule for 350: their accuracies are not comparable with finished runs.",
    "Times include the test pass, and the average over experts was computed anew in each of its calls: 116 s against 43 s "
    "at batch 512 come from there, while training steps alone took 12.7 s and 16.1 s for fifty.",
]
# Keys in which the models differ by what they are.
MODEL_KEYS = ("ffn.kind", "ffn.router", "ffn.experts", "ffn.granularity", "ffn.draw", "ffn.inference", "ffn.expert_init",
              "ffn.balance_loss", "train.batch")


def model_of(config):
    """Which of the study's models a configuration is; None for others."""
    if config["ffn.kind"] == "dense":
        return VIT
    return {"switch": MOE, "random": RANDOM}.get(config["ffn.router"])


def study_table(table):
    """The finished runs of the study's three models, with columns model, experts, batch, accuracy (%), and setting where others differ."""
    if table.empty:
        return table
    models = table.apply(model_of, axis=1)
    table = table[models.notna() & (table["state"] == "finished")].copy()
    table["model"] = models[table.index]
    table["experts"] = table["ffn.experts"].where(table["model"] != VIT, 1)
    table["batch"] = table["train.batch"]
    table["accuracy"] = 100 * table["test_accuracy"]
    others = [key for key in varying_keys(table) if key not in MODEL_KEYS]
    if others:
        table["setting"] = table[others].apply(lambda row: ", ".join(f"{key} {row[key]}" for key in others), axis=1)
    return table


def other_columns(table):
    """What else differs between the runs, in one column: such runs are kept apart."""
    return [column for column in ("setting",) if column in table]


def data_words(table):
    """What was measured, in a sentence; levels compare with those published on CIFAR-10 at full size alone."""
    if table.empty:
        return "No finished runs of the study's models (dense, switch, random) here: the published values stand alone."
    kinds, seeds = sorted(table["data.kind"].unique()), table[SEED].nunique()
    epochs = sorted({f"{value:g}" for value in table["epochs"]}, key=float)
    words = (f"Measured: {len(table)} finished runs, {seeds} seed{'s' if seeds > 1 else ''}, on {', '.join(kinds)}, "
             f"{', '.join(epochs)} epochs. Mean ± half of the 95 % Student interval (number of seeds).")
    full = kinds == ["cifar10"] and set(table["model.width"]) == {300} and set(table["model.layers"]) == {12}
    return words if full else (words + " Data or model are not the published ones: compare orders and differences "
                               "between models, not levels.")


def beside(published, table, by, column, digits=2, also=()):
    """Published values beside the measured mean and interval; measured groups that were not published stand below."""
    extra = [*also, *other_columns(table)] if len(table) else []
    measured = summarize(table, [*by, *extra], [column]) if len(table) else pd.DataFrame(columns=[*by, column])
    rows, seen = [], set()
    for key, value in published.items():
        key = key if isinstance(key, tuple) else (key,)
        found = [row for _, row in measured.iterrows() if tuple(row[name] for name in by) == key]
        seen.add(key)
        rows += [cells(by, key, value, row, extra, column, digits) for row in found or [None]]
    for _, row in measured.iterrows():
        key = tuple(row[name] for name in by)
        if key not in seen:
            rows.append(cells(by, key, None, row, extra, column, digits))
    return pd.DataFrame(rows)


def cells(by, key, published, row, extra, column, digits):
    number = "-" if published is None else f"{published:,.{digits}f}"
    measured = "-" if row is None else with_interval(row[column], row[f"{column}_half"], row[f"{column}_n"], digits)
    return {**dict(zip(by, key)), **{name: "-" if row is None else row[name] for name in extra}, "published": number,
            "measured": measured}


def tables(table):
    """[(title, table)]: the study's four tables and its README's, published and measured. `table`: of study_table()."""
    bits = without_repeats(table) if len(table) else table
    layout = [name for name in ("ranks", "threads") if len(table) and table[name].nunique() > 1]
    parameters = beside(PARAMETERS, table, ["model", "experts"], "parameters_active", 0)
    if len(table):
        stored = table.groupby(["model", "experts"])["parameters_stored"].first()
        parameters["stored"] = [f"{stored[key]:,}" if key in stored.index else "-"
                                for key in zip(parameters["model"], parameters["experts"])]
        parameters["measured"] = [text.split(" ")[0] for text in parameters["measured"]]
    common = table[table["batch"] == common_batch(table)] if len(table) else table
    return [
        ("Parameters that one token uses", parameters),
        ("Number of experts: test accuracy, %", beside(NUMBER_OF_EXPERTS, bits, ["model", "experts"], "accuracy",
                                                       also=["batch"] if len(bits) and bits["batch"].nunique() > 1 else [])),
        ("Batch size: seconds an epoch", beside(BATCH_SIZE, four(table), ["model", "batch"], "seconds_per_epoch",
                                                also=layout)),
        ("Training time: seconds an epoch, batch " + (f"256; measured {common_batch(table)}" if len(table) else "256"),
         beside({model: value for (model, _), value in TRAINING_TIME.items()}, four(common), ["model"],
                "seconds_per_epoch", also=layout)),
        ("Accuracy of the three models, %, four experts",
         beside(ACCURACY, four(bits[bits["batch"] == common_batch(table)] if len(bits) else bits), ["model"], "accuracy")),
    ]


def four(table):
    """Dense runs, and those with four experts."""
    return table[table["experts"].isin([1, 4])] if len(table) else table


def common_batch(table):
    """256, the batch of the published table, where it was measured; else the batch of most runs."""
    return 256 if 256 in set(table["batch"]) else int(table["batch"].mode()[0])


def claims(table):
    """The study's claims as differences over common seeds: second minus first, at each batch size that has both."""
    rows = []
    for claim, column, (first, second), unit in [
            ("four experts beat one (ViT)", "accuracy", ((VIT, 1), (RANDOM, 4)), "points"),
            ("four experts beat eight", "accuracy", ((RANDOM, 8), (RANDOM, 4)), "points"),
            ("a learned gate beats a dense network", "accuracy", ((VIT, 1), (MOE, 4)), "points"),
            ("random routing is as accurate as learned", "accuracy", ((MOE, 4), (RANDOM, 4)), "points"),
            ("random routing trains faster than learned", "seconds_per_epoch", ((MOE, 4), (RANDOM, 4)), "s an epoch"),
            ("random routing trains faster than dense", "seconds_per_epoch", ((VIT, 1), (RANDOM, 4)), "s an epoch")]:
        source = without_repeats(table) if len(table) and column == "accuracy" else table
        for settings, group in groups_of(source):
            masks = [(group["model"] == model) & (group["experts"] == experts) for model, experts in (first, second)]
            if not all(mask.any() for mask in masks):
                continue
            mean, half, number, verdict = paired_differences(group, column, *masks)
            rows.append({"claim": claim, **settings, "difference": f"{second[0]} ({second[1]}) - {first[0]} ({first[1]})",
                         "measured": f"{'+' if mean > 0 else ''}{with_interval(mean, half, number)} {unit}",
                         "verdict": verdict})
    return pd.DataFrame(rows, columns=None if rows else ["claim", "difference", "measured", "verdict"])


def groups_of(table):
    """[(settings, runs)]: runs that differ in model, experts, seed and layout alone."""
    if table.empty:
        return []
    keys = ["batch", *(name for name in ("ranks", "threads") if table[name].nunique() > 1), *other_columns(table)]
    return [(dict(zip(keys, values if isinstance(values, tuple) else (values,))), group)
            for values, group in table.groupby(keys[0] if len(keys) == 1 else keys)]


def accuracy_figure(runs, table):
    """Test accuracy against epochs: mean over seeds, 95 % interval as a band; the most common setting and batch, four experts."""
    drawn, axes = figure(height=4.2)
    axis = axes[0, 0]
    if table.empty:
        no_data(axis, "no finished runs of the study's models")
        return drawn
    table = four(without_repeats(table))
    setting = ""
    if "setting" in table:
        setting = table["setting"].mode()[0]
        table = table[table["setting"] == setting]
    batch = common_batch(table)
    table = table[table["batch"] == batch]
    by_name = {run.name: run for run in runs}
    for index, model in enumerate(MODELS):
        group = table[table["model"] == model]
        if group.empty:
            continue
        curves = pd.concat([by_name[name].evaluations() for name in group["run"]])
        curves = curves.assign(accuracy=100 * curves["accuracy"], epoch=curves["epoch"].round(6))
        curve = summarize(curves, ["epoch"], ["accuracy"])
        style, half = line_style(index, markers=len(curve) < 30), curve["accuracy_half"].fillna(0)
        axis.plot(curve["epoch"], curve["accuracy"], label=f"{model} ({group[SEED].nunique()} seeds)", **style)
        axis.fill_between(curve["epoch"], curve["accuracy"] - half, curve["accuracy"] + half, alpha=0.15,
                          color=style["color"], linewidth=0)
    if set(table["data.kind"]) == {"cifar10"}:
        for index, model in enumerate(MODELS):
            axis.axhline(ACCURACY[model], label=f"{model}, published", **line_style(index) | {"linewidth": 0.8})
    axis.set(xlabel="epoch", ylabel="test accuracy, %",
             title=f"{', '.join(sorted(set(table['data.kind'])))}, batch {batch}; band: 95 % interval of the mean")
    if setting:
        axis.set_title(axis.get_title() + "\n" + textwrap.fill(setting, 110), fontsize=9)
    axis.legend(loc="lower right")
    return drawn
