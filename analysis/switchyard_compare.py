"""Means and intervals over seeds, differences between groups of runs over their common seeds."""

import math

import pandas as pd
import scipy.stats

# Keys that say where and how a run ran, not what it computed.
LAYOUT_KEYS = ("run.name", "run.out", "run.log_every", "run.eval_every", "data.path", "parallel.experts",
               "parallel.threads", "parallel.exchange", "parallel.overlap", "parallel.timeout",
               "compute.graphs", "checkpoint.every", "checkpoint.keep")
SEED = "run.seed"
DATA = "data.hash"  # no key, but as much a part of what a result depends on (switchyard_results.data_of)


def mean_and_interval(values):
    """(mean, half width of the 95 % Student interval, number); a single value has no interval: NaN."""
    values = pd.Series(values, dtype=float).dropna()
    if len(values) < 2:
        return (values.mean(), math.nan, len(values))
    return values.mean(), scipy.stats.t.ppf(0.975, len(values) - 1) * values.std() / math.sqrt(len(values)), len(values)


def varying_keys(table):
    """The configuration's keys that differ between runs, but for the seed and those of the layout."""
    keys = [column for column in table if "." in column and column not in (*LAYOUT_KEYS, SEED)]
    varying = [key for key in keys if table[key].nunique(dropna=False) > 1]
    asked_for = [key for key in varying if key.startswith("data.") and key != DATA]
    if DATA in varying and asked_for and table.groupby(asked_for, dropna=False)[DATA].nunique().max() == 1:
        varying.remove(DATA)  # other keys say as much
    return varying


def result_keys(table):
    """The configuration's keys that a result depends on, the seed among them."""
    return [column for column in table if "." in column and column not in LAYOUT_KEYS]


def without_repeats(table):
    """One of the runs that computed the same thing on other layouts: the same bits, and no further evidence."""
    return table.drop_duplicates(result_keys(table))


def evidence(table, column):
    """The values of a column that count. Runs of one configuration, seed included, have one outcome, and so have runs of
    one digest, which differ in keys that their model leaves unused. But each was timed by itself: of times (columns
    "seconds...") all count, save those of a copied file."""
    if SEED not in table:  # not a table of runs
        return table[column]
    if column.startswith("seconds"):
        return table.drop_duplicates([*result_keys(table), column])[column]
    table = without_repeats(table)
    if "digest" in table:
        table = table[(table["digest"] == "") | ~table.duplicated(["digest", column])]
    return table[column]


def summarize(table, by, columns):
    """A row for each group: for each column its mean, COLUMN_half (the 95 % interval is mean +- that) and COLUMN_n, the
    number of values that count (evidence)."""
    rows = []
    for values, group in table.groupby(by[0] if len(by) == 1 else list(by), sort=True, dropna=False):
        row = dict(zip(by, values if isinstance(values, tuple) else (values,)))
        for column in columns:
            row[column], row[f"{column}_half"], row[f"{column}_n"] = mean_and_interval(evidence(group, column))
        rows.append(row)
    return pd.DataFrame(rows, columns=[*by, *(f"{column}{end}" for column in columns for end in ("", "_half", "_n"))])


def paired_differences(table, column, first, second):
    """`column` of the group `second` minus that of `first`, over the seeds that both have: (mean, half, n, verdict).

    A group is {key: value} or a mask of rows. Runs of one seed in one group count as their mean.
    """
    a, b = (by_seed(table, column, group) for group in (first, second))
    mean, half, number = mean_and_interval((b - a).dropna())
    if number == 0:
        verdict = "no common seeds"
    elif number == 1:
        verdict = "one seed: no interval"
    else:
        verdict = "not told apart" if abs(mean) <= half else "higher" if mean > 0 else "lower"
    return mean, half, number, verdict


def by_seed(table, column, group):
    if isinstance(group, dict):
        mask = pd.Series(True, index=table.index)
        for key, value in group.items():
            mask &= table[key] == value
        group = mask
    return table[group].groupby(SEED)[column].mean()


def with_interval(mean, half, number, digits=2):
    """"71.06 ± 0.31 (3)": mean, half width of the 95 % interval, seeds."""
    if not number:
        return "-"
    spread = "" if math.isnan(half) else f" ± {half:.{digits}f}"
    return f"{mean:,.{digits}f}{spread} ({number})"
