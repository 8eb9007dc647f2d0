"""Mixtures in the literature, published beside measured: how the importance and load losses spread tokens over experts
(Shazeer et al., 1701.06538), and what experts find in data of clusters (Chen et al., 2208.02813)."""

import pandas as pd

from switchyard_compare import mean_and_interval, with_interval

# Table 6: (w_importance, w_load): (test perplexity, CV of importance, CV of load, largest over mean load).
TABLE_6 = {(0, 0): (39.8, 3.04, 3.01, 17.80), (0.2, 0): (35.6, 0.06, 0.17, 1.47), (0, 0.2): (35.7, 0.22, 0.04, 1.15),
           (0.1, 0.1): (35.6, 0.06, 0.05, 1.14), (0.01, 0.01): (35.7, 0.48, 0.11, 1.37), (1, 1): (35.7, 0.03, 0.02, 1.07)}
# Chen et al.: (setting, network, activation): (test accuracy %, its deviation over 10 runs, dispatch entropy in nats,
# its deviation). Setting 1 as in the paper, the others as the authors' published notebooks have them.
CHEN = {(1, "dense", "identity"): (68.71, None, None, None), (1, "dense", "cube"): (79.48, None, None, None),
        (1, "moe", "identity"): (92.99, 2.11, 1.300, 0.044), (1, "moe", "cube"): (99.46, 0.55, 0.098, 0.087),
        (2, "dense", "identity"): (68.22, None, None, None), (2, "dense", "cube"): (77.38, None, None, None),
        (2, "moe", "identity"): (89.49, 1.35, 1.262, 0.095), (2, "moe", "cube"): (98.10, 1.56, 0.183, 0.144),
        (3, "dense", "identity"): (74.30, None, None, None), (3, "dense", "cube"): (73.72, None, None, None),
        (3, "moe", "identity"): (95.93, 1.34, 1.160, 0.100), (3, "moe", "cube"): (99.99, 0.02, 0.008, 0.011),
        (4, "dense", "identity"): (74.28, None, None, None), (4, "dense", "cube"): (70.26, None, None, None),
        (4, "moe", "identity"): (93.30, 1.48, 1.160, 0.155), (4, "moe", "cube"): (98.92, 1.18, 0.089, 0.120)}
LAST = 100  # logged steps that count


def evenness(run):
    """Means over layers and the last steps: CV of importance (sum of weights) and of load (tokens), largest over mean.

    Of the batch's tokens, all ranks together.
    """
    rows = run.routing()
    shape = [rows[name].nunique() for name in ("step", "block", "expert")]
    load, weight = (rows[name].fillna(0).to_numpy().reshape(shape)[-LAST:] for name in ("load", "weight"))
    importance = load * weight

    def variation(values):
        return (values.std(axis=-1) / values.mean(axis=-1)).mean()

    return {"CV(importance)": variation(importance), "CV(load)": variation(load),
            "max/mean load": (load.max(axis=-1) / load.mean(axis=-1)).mean()}


def table_6(runs):
    """The pairs that were measured, published beside the mean over seeds with its 95 % interval."""
    found = pd.DataFrame([{"pair": (run.config["ffn.importance_loss"], run.config["ffn.load_loss"]), **evenness(run)}
                          for run in runs])
    rows = []
    for pair, (_, importance, load, fullest) in TABLE_6.items():
        own = found[found["pair"] == pair]
        if len(own) == 0:
            continue
        row = {"w importance": pair[0], "w load": pair[1]}
        for name, published in (("CV(importance)", importance), ("CV(load)", load), ("max/mean load", fullest)):
            row[f"{name}, published"] = published
            row[f"{name}, here"] = with_interval(*mean_and_interval(own[name]), digits=3)
        rows.append(row)
    return pd.DataFrame(rows)


def chen_table(runs):
    """A row for each setting and model that was measured: mean and deviation over seeds, as the paper gives them."""
    found = pd.DataFrame([{"key": tuple(run.config[key] for key in ("data.clusters_setting", "ffn.kind",
                                                                    "ffn.activation")),
                           "accuracy": 100 * float(run.attributes["test_accuracy"]),
                           "entropy": float(run.attributes.get("dispatch_entropy") or "nan")}
                          for run in runs])
    rows = []
    for key, own in found.groupby("key"):
        setting, kind, activation = key
        accuracy, spread, entropy, entropy_spread = CHEN[key]
        rows.append({"setting": setting, "model": f"{'mixture' if kind == 'moe' else 'single'}, "
                     f"{'cubic' if activation == 'cube' else 'linear'}", "seeds": len(own),
                     "accuracy, % published": deviating(accuracy, spread, 2),
                     "here": deviating(own["accuracy"].mean(), own["accuracy"].std(), 2),
                     "entropy, published": deviating(entropy, entropy_spread, 3),
                     "entropy, here": deviating(own["entropy"].mean(), own["entropy"].std(), 3)})
    return pd.DataFrame(rows)


TABLES = [("Importance and load losses", "shazeer-table6", table_6), ("Data of clusters", "chen", chen_table)]


def deviating(mean, deviation, digits):
    if mean is None or pd.isna(mean):
        return "-"
    return f"{mean:.{digits}f}" + (f" +- {deviation:.{digits}f}" if deviation is not None and not pd.isna(deviation) else "")
