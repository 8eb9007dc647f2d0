"""Mixtures: how the importance and load losses spread tokens over experts (Shazeer et al., 1701.06538)."""

import pandas as pd

from switchyard_compare import mean_and_interval, with_interval

# Table 6: (w_importance, w_load): (test perplexity, CV of importance, CV of load, largest over mean load).
TABLE_6 = {(0, 0): (39.8, 3.04, 3.01, 17.80), (0.2, 0): (35.6, 0.06, 0.17, 1.47), (0, 0.2): (35.7, 0.22, 0.04, 1.15),
           (0.1, 0.1): (35.6, 0.06, 0.05, 1.14), (0.01, 0.01): (35.7, 0.48, 0.11, 1.37), (1, 1): (35.7, 0.03, 0.02, 1.07)}
OWN = 0.1  # what noisy_top_k takes where no weight is given
LAST = 100  # logged steps that count


def weights(config):
    return tuple(OWN if config[key] == -1 else config[key] for key in ("ffn.importance_loss", "ffn.load_loss"))


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
    found = pd.DataFrame([{"pair": weights(run.config), **evenness(run)}
                          for run in runs if run.config["ffn.kind"] == "moe" and run.config["ffn.router"] == "noisy_top_k"
                          and run.attributes.get("status") == "finished"])
    rows = []
    for pair, (_, importance, load, fullest) in TABLE_6.items():
        own = found[found["pair"] == pair] if len(found) else found
        if len(own) == 0:
            continue
        row = {"w importance": pair[0], "w load": pair[1]}
        for name, published in (("CV(importance)", importance), ("CV(load)", load), ("max/mean load", fullest)):
            row[f"{name}, published"] = published
            row[f"{name}, here"] = with_interval(*mean_and_interval(own[name]), digits=3)
        rows.append(row)
    return pd.DataFrame(rows)
