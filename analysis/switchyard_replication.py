"""The study that this project repeats: its tables as published, beside what runs here measured, and what its logs show.

Published: "Enhanced MoE with random routing based on Transformer" (github gagi0911/hpml_final_project): CIFAR-10, a
vision transformer of 12 blocks, 300 wide; dense ("ViT"), with a learned top-1 gate ("MoE") and with one expert drawn
for each batch ("MoE & random routing"). One run each, no intervals.
"""

import pandas as pd

from switchyard_compare import (SEED, paired_differences, summarize, varying_keys, with_interval,
                                without_repeats)
from switchyard_figures import figure, line_style, no_data, whole_ticks
from switchyard_studies import OTHER_MODELS, is_unused

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
    "The best accuracy of all logs, 74.98, is of a run whose speed suggests one fixed expert, no average (inferred).",
    "The parameter count of the MoE's log is that of one feed-forward network and a gate per block: four real experts "
    "would store 34,979,002. Random routing's logs store the average as a fifth copy (42,353,242).",
    "Best and final accuracy differ by up to 1.8 points, the two processes by up to 1.4: as much as the differences "
    "claimed between models (1.1 points). Each process trained on 25,000 images of its own and tested on 5,000.",
    "The runs with eight experts and one of those with four stopped early (100 and 198 of 350 epochs), on a cosine "
    "schedule for 350: their accuracies are not comparable with finished runs.",
    "Times include the test pass, in which the average over experts was computed anew in each call: 116 s against 43 s "
    "at batch 512 come from there, while training steps alone took 12.7 s and 16.1 s for fifty.",
]
# Keys in which the models differ by what they are.
OWN_KEYS = ("ffn.granularity", "ffn.draw", "ffn.inference", "ffn.expert_init", "ffn.balance_loss")
MODEL_KEYS = ("ffn.kind", "ffn.router", "ffn.experts", "train.batch", *OWN_KEYS)


def model_of(config):
    """Which of the study's models a configuration is; None for others."""
    if config.get("model.kind") in OTHER_MODELS or config["ffn.kind"] == "fff":
        return None
    if config["ffn.kind"] == "dense":
        return VIT
    return {"switch": MOE, "random": RANDOM}.get(config["ffn.router"])


def without_unused_keys(table):
    """With the usual value of each key for the runs that leave it unused: they do not differ in it."""
    known = table.copy()
    for key in table.columns:
        unused = table.apply(lambda config, key=key: is_unused(key, config), axis=1)
        if unused.any():
            used = table.loc[~unused, key].mode()
            known[key] = table[key].where(~unused, used[0] if len(used) else "-")
    return known


def study_table(table):
    """The finished runs of the study's three models, with columns model, experts, batch, accuracy (%), setting."""
    if table.empty:
        return table
    models = table.apply(model_of, axis=1)
    table = table[models.notna() & (table["state"] == "finished")].copy()
    table["model"] = models[table.index]
    table["experts"] = table["ffn.experts"].where(table["model"] != VIT, 1)
    table["batch"] = table["train.batch"]
    table["accuracy"] = 100 * table["test_accuracy"]
    if len(table):
        table = without_unused_keys(table)
    words = setting_of_each(table)
    if words.nunique() > 1:
        letters = {text: letter_of(index) for index, text in enumerate(words.value_counts(sort=True).index)}
        table["setting"], table["setting_words"] = words.map(letters), words
    return table


def setting_of_each(table):
    """What differs beyond model and batch, as words; keys of the model's own where they are not as in most of its runs.
    """
    varying = varying_keys(table)
    others = [key for key in varying if key not in MODEL_KEYS]
    own = [key for key in varying if key in OWN_KEYS]
    usual = table.groupby("model")[own].agg(lambda values: values.mode()[0]) if own else None
    words = [[f"{key} {row[key]}" for key in others] + [f"{key} {row[key]}" for key in own
                                                        if row[key] != usual.loc[row["model"], key]]
             for _, row in table.iterrows()]
    return pd.Series(map(", ".join, words), index=table.index, dtype=object)


def letter_of(index):
    return (letter_of(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def other_columns(table):
    """What else differs between the runs, as a letter: such runs are kept apart."""
    return [column for column in ("setting",) if column in table]


def settings_words(table):
    """What the letters stand for, the one of most runs first."""
    if "setting" not in table:
        return []
    return [f"Setting {letter} ({len(group)} runs): {group['setting_words'].iloc[0]}"
            for letter, group in sorted(table.groupby("setting"), key=lambda item: (len(item[0]), item[0]))]


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
    layout = [name for name in ("ranks", "threads") if len(table) and table[name].nunique() > 1]
    parameters = beside(PARAMETERS, table, ["model", "experts"], "parameters_active", 0)
    if len(table):
        names = ["model", "experts", *other_columns(table)]
        stored = table.groupby(names)["parameters_stored"].first()
        parameters["stored"] = [f"{stored[tuple(key)]:,}" if tuple(key) in stored.index else "-"
                                for key in parameters[names].to_numpy()]
        parameters["measured"] = [text.split(" ")[0] for text in parameters["measured"]]
    batch = common_batch(table) if len(table) else 256
    common = table[table["batch"] == batch] if len(table) else table
    batches = ["batch"] if len(table) and table["batch"].nunique() > 1 else []
    return [
        ("Parameters that one token uses", parameters),
        ("Number of experts: test accuracy, %",
         beside(NUMBER_OF_EXPERTS, table, ["model", "experts"], "accuracy", also=batches)),
        ("Batch size: seconds an epoch", beside(BATCH_SIZE, four(table), ["model", "batch"], "seconds_per_epoch",
                                                also=layout)),
        (f"Training time: seconds an epoch, published at batch 256, measured at {batch}",
         beside({model: value for (model, _), value in TRAINING_TIME.items()}, four(common), ["model"],
                "seconds_per_epoch", also=layout)),
        (f"Accuracy of the three models, %, four experts, published at batch 256, measured at {batch}",
         beside(ACCURACY, four(common), ["model"], "accuracy")),
    ]


def four(table):
    """Dense runs, and those with four experts."""
    return table[(table["model"] == VIT) | (table["experts"] == 4)] if len(table) else table


def common_batch(table):
    """256, the batch of the published table, where it was measured; else the batch of most runs."""
    return 256 if 256 in set(table["batch"]) else int(table["batch"].mode()[0])


CLAIMS = [  # words, column, first, second, and what second - first is claimed to be
    ("four experts beat one (ViT)", "accuracy", (VIT, 1), (RANDOM, 4), "higher"),
    ("four experts beat eight", "accuracy", (RANDOM, 8), (RANDOM, 4), "higher"),
    ("a learned gate beats a dense network", "accuracy", (VIT, 1), (MOE, 4), "higher"),
    ("random routing is as accurate as learned", "accuracy", (MOE, 4), (RANDOM, 4), "no lower"),
    ("random routing trains faster than learned", "seconds_per_epoch", (MOE, 4), (RANDOM, 4), "lower"),
    ("random routing trains faster than dense", "seconds_per_epoch", (VIT, 1), (RANDOM, 4), "lower"),
]


def claims(table):
    """The study's claims as differences over common seeds: second minus first, at each batch size that has both."""
    rows = []
    for claim, column, first, second, claimed in CLAIMS:
        unit = "points" if column == "accuracy" else "s an epoch"
        layout = () if column == "accuracy" else ("ranks", "threads")
        for settings, group in groups_of(table, layout):
            masks = [(group["model"] == model) & (group["experts"] == experts)
                     for model, experts in (first, second)]
            if not all(mask.any() for mask in masks):
                continue
            mean, half, number, verdict = paired_differences(group, column, *masks)
            rows.append({"claim": claim, **settings,
                         "difference": f"{second[0]} ({second[1]}) - {first[0]} ({first[1]})",
                         "measured": f"{'+' if mean > 0 else ''}{with_interval(mean, half, number)} {unit}",
                         "difference is": verdict, "holds here": holds(claimed, verdict)})
    return pd.DataFrame(rows, columns=None if rows else ["claim", "difference", "measured", "holds here"])


def holds(claimed, verdict):
    """claimed: higher, lower, or "no lower"."""
    if verdict not in ("higher", "lower"):
        return "not refuted" if claimed == "no lower" and verdict == "not told apart" else "not shown"
    return "yes" if (verdict == "higher") == (claimed != "lower") else "no"


def groups_of(table, layout):
    """[(settings, runs)]: runs that differ in model, experts, seed and layout alone, and not in the keys `layout`."""
    if table.empty:
        return []
    keys = ["batch", *(name for name in layout if table[name].nunique() > 1), *other_columns(table)]
    return [(dict(zip(keys, values if isinstance(values, tuple) else (values,))), group)
            for values, group in table.groupby(keys[0] if len(keys) == 1 else keys)]


def accuracy_figure(runs, table):
    """Test accuracy against epochs: mean over seeds, 95 % interval as a band; of the most common setting and batch."""
    drawn, axes = figure(height=4.2)
    axis = axes[0, 0]
    table = four(without_repeats(table)) if len(table) else table
    if table.empty:
        no_data(axis, "no finished runs of the study's models, dense or with four experts")
        return drawn
    setting = table["setting"].mode()[0] if "setting" in table else ""
    if setting:
        table = table[table["setting"] == setting]
    batch = common_batch(table)
    table = table[table["batch"] == batch]
    by_path = {str(run.path): run for run in runs}
    for index, model in enumerate(MODELS):
        group = table[table["model"] == model]
        if group.empty:
            continue
        curves = pd.concat([by_path[path].evaluations() for path in group["path"]])
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
             title=f"{', '.join(sorted(set(table['data.kind'])))}, batch {batch}"
                   f"{', setting ' + setting if setting else ''}; band: 95 % interval of the mean")
    whole_ticks(axis)
    axis.legend(loc="lower right")
    return drawn
