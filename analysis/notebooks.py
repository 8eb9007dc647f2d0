#!/usr/bin/env python3
"""notebooks.py: writes the notebooks beside it from the text below, without outputs. A test holds them equal.

Cells begin with a line "%%", or "%% md" for Markdown.
"""

import json
import pathlib

SETUP = '''\
import os
import pathlib

from IPython.display import display
from switchyard_compare import *
from switchyard_results import *

pd.options.display.max_colwidth = None
RUNS = pathlib.Path(os.environ.get("SWITCHYARD_RUNS", "../runs"))  # a folder that holds runs, at any depth'''

NOTEBOOKS = {}

NOTEBOOKS["run"] = f"""\
%% md
# One run, live while it trains

`SWITCHYARD_RUN` names the results file or the run's folder; without it the newest below `SWITCHYARD_RUNS` is shown. The
file is read while the run goes on writing it; the figure is renewed for up to `SWITCHYARD_WATCH` seconds, or until the
run ends. Stop the cell to end it earlier.
%%
{SETUP}
WATCH = float(os.environ.get("SWITCHYARD_WATCH", "3600"))  # seconds
EVERY = float(os.environ.get("SWITCHYARD_EVERY", "5"))  # seconds between two figures

import time

import switchyard_routing as routing
from IPython.display import clear_output

path = os.environ.get("SWITCHYARD_RUN") or max(find_files(RUNS), key=lambda file: file.stat().st_mtime, default=None)
if path is None:
    raise ResultsError(f"{{RUNS}}: no results.h5 in it or below: set SWITCHYARD_RUN or SWITCHYARD_RUNS")
%%
end = time.monotonic() + WATCH
while True:
    run = open_run(path)
    table = table_of_runs([run])
    drawn = routing.run_figure(run)
    clear_output(wait=True)
    print(f"{{run.name}}: {{state_of(run)}}, step {{table['steps'].item()}}, {{table['epochs'].item():.2f}} epochs")
    display(drawn)
    if not run.being_written or time.monotonic() >= end:
        break
    time.sleep(EVERY)
%% md
Evaluations, and the load of the experts over time where the run has a mixture.
%%
display(run.evaluations().tail(10))
if run.has_routing():
    display(routing.load_heat_maps([run]))
%% md
How it ran, and its configuration.
%%
for name, value in run.attributes.items():
    print(f"{{name:18}} {{value}}")
with pd.option_context("display.max_rows", None):
    display(pd.Series(run.config, name="value").to_frame())
"""

NOTEBOOKS["routing"] = f"""\
%% md
# Where the tokens go

The load of every expert over time, and what happens when a gate begins unluckily: without a penalty for uneven choice
it stays with one expert (collapse). The runs of the second part are made by

    for c in plain noise balance loss_free; do build/release/switchyard train --config configs/collapse/$c.cfg; done
%%
{SETUP}
SELECT = os.environ.get("SWITCHYARD_SELECT", "*")  # names of the runs of the first part
MOST = 4  # of them

import fnmatch

import switchyard_routing as routing

problems = []
mixtures = [run for run in open_runs(RUNS, problems) if run.has_routing()]
for problem in problems:
    print(problem)
tilted = [run for run in mixtures if run.config.get("ffn.gate_tilt", 0) != 0]  # of the second part
selected = [run for run in mixtures if run not in tilted and fnmatch.fnmatch(run.name, SELECT)]
shown = routing.one_of_each(selected, MOST)
if len(selected) > MOST:
    print(f"{{len(selected)}} runs with a mixture; SWITCHYARD_SELECT chooses others than these {{MOST}}")
%% md
## Load by block and expert

White is an even share. Purple: fewer tokens, orange: more, up to twice an even share and above.
%%
display(routing.load_heat_maps(shown))
%% md
## Collapse, and its cures
%%
collapse = sorted(tilted, key=lambda run: not run.name.endswith("plain"))[:6]
if collapse:
    table = routing.collapse_table(collapse)
    display(routing.load_heat_maps(collapse[:4]))
    display(routing.collapse_figure(collapse))
    display(table)
    print(*routing.collapse_words(table), sep="\\n")
else:
    print(f"{{RUNS}}: no run with an unlucky start (ffn.gate_tilt): the commands above make four")
"""

NOTEBOOKS["replication"] = f"""\
%% md
# The study, repeated

"Enhanced MoE with random routing based on Transformer" in four tables and a figure: what it published, beside what was
measured here with repeated seeds. Runs are found by their configuration: `ffn.kind = dense` (ViT), `ffn.router =
switch` (MoE) and `random`, all finished ones below `SWITCHYARD_RUNS`. Runs that differ in anything else are another
setting, with a letter and rows of its own; a run repeated on other ranks is the same bits, and counts once where
accuracy is concerned.
%%
{SETUP}
import switchyard_replication as replication

problems = []
runs = open_runs(RUNS, problems)
for problem in problems:
    print(problem)
study = replication.study_table(table_of_runs(runs))
print(replication.data_words(study), *replication.settings_words(study), sep="\\n")
%% md
## The tables
%%
for title, table in replication.tables(study):
    print(title)
    display(table)
%% md
## The figure
%%
display(replication.accuracy_figure(runs, study))
%% md
## The claims

Differences over common seeds, with their 95 % interval: "not told apart" where it holds zero. A claim holds here where
the whole interval is on its side.
%%
display(replication.claims(study))
%% md
## What the published logs really show
%%
display(replication.LOGS)
for finding in replication.LOG_FINDINGS:
    print("-", finding)
"""

NOTEBOOKS["scaling"] = f"""\
%% md
# Scaling

Runs below `SWITCHYARD_RUNS` that differ in their number of ranks: with the same batch (strong scaling) or with the
batch in proportion (weak). Their results are the same bits where the batch is the same; here it is about time. Files of
`bench exchange --output FILE.h5` are looked for below `SWITCHYARD_BENCH` (the same folder unless told), for example

    for P in 2 4; do
      mpirun -n $P build/release/switchyard bench exchange --config configs/quickstart-switch.cfg \\
          --parallel.experts $P --output runs/exchange-$P.h5
    done
%%
{SETUP}
BENCH = pathlib.Path(os.environ.get("SWITCHYARD_BENCH", RUNS))
CORES = int(os.environ.get("SWITCHYARD_CORES", os.cpu_count()))  # of the machine that the runs were on

import switchyard_loggp as loggp
import switchyard_scaling as scaling

# The network of the extrapolation, assumed; another: loggp.Network("name", latency=, gap=, byte=), all in seconds.
RANKS_PER_NODE, NETWORK, MOST_RANKS = scaling.RANKS_PER_NODE, scaling.NETWORK, scaling.MOST_RANKS

problems = []
measured = scaling.scaling_table(open_runs(RUNS, problems))
for problem in problems:
    print(problem)
groups = [(weak, words, runs) for weak in (False, True) for words, runs in scaling.groups(measured, weak)]
if not groups:
    print(f"{{RUNS}}: no runs that differ in their ranks alone")
%% md
## Strong and weak scaling

A step's time is split on rank 0: compute, exchange (tokens to experts and back; also the time until the others are
ready), reduce (sums of gradients), wait (agreeing on counts, slower ranks).
%%
for weak, words, runs in groups:
    display(scaling.scaling_figure(words, runs, weak, CORES))
    display(scaling.efficiency_table(runs, weak))
%% md
## A model of the messages

T(P, b) = (L + 2 o) + (P - 2) g + b G for an all-to-all of P ranks (LogGP), fitted to the fastest exchanges of
`bench exchange`.
%%
bench = loggp.exchange_benches(BENCH)
if bench.empty:
    print(f"{{BENCH}}: no file of bench exchange: the commands above make two")
else:
    network, bench = loggp.fit(bench)
    print(network.words())
    for ranks, error in (bench["predicted"] / bench["seconds_least"] - 1).abs().groupby(bench["ranks"]):
        crowded = f"; ranks take turns on {{CORES}} cores: no network's figures" if ranks > CORES else ""
        print(f"{{ranks}} ranks: error of the fit {{100 * error.median():.0f}} % (median), {{100 * error.max():.0f}} % "
              f"(largest){{crowded}}")
    display(scaling.fit_figure(bench))
%% md
### Checked against the measured steps

The compute of a microbatch is that of the run with the fewest ranks; ranks beyond the cores share them. What the model
leaves out is waiting: ranks that a shared machine holds up let the others stand in the exchange.
%%
if not bench.empty:
    for weak, words, runs in groups:
        print(words)
        display(scaling.check_table(runs, network, CORES))
%% md
### Extrapolated to {1024:,} ranks
%%
if groups:
    words, step = scaling.to_extrapolate(groups, CORES)
    table = scaling.extrapolate(step, NETWORK, MOST_RANKS)
    print(f"The step of {{words}}. Assumed:")
    for assumption in scaling.assumptions(step, NETWORK, RANKS_PER_NODE):
        print("-", assumption)
    display(scaling.extrapolation_figure(table, NETWORK))
    parts = ["compute", "exchange", "reduce", "seconds"]
    display(table.assign(**{{f"{{part}}, ms": 1e3 * table[part] for part in parts}}).drop(columns=parts).round(3))
"""

NOTEBOOKS["fff"] = f"""\
%% md
# Fast feedforward networks

Trees over small leaves (Belcak & Wattenhofer, 2308.14711) beside dense networks of the same training width: accuracies as
published and as measured, and the time of evaluation. M_A: accuracy on the training split at its best; G_A: on the test
split, of the parameters that did best on the validation split; ETT: epochs elapsed then. The paper reports the best of
10 runs; here the best stands beside the mean over seeds with its 95 % interval. Runs are made by

    build/release/switchyard study run configs/studies/fff-table1.cfg

(`fff-table2.cfg` and `fff-table3.cfg` need CIFAR-10 and more time), times by
`build/release/switchyard bench inference --output inference.h5`, in the same folder.
%%
{SETUP}
import switchyard_fff as fff
from switchyard_studies import literature, runs_of_study

problems = []
runs = open_runs(RUNS, problems)
for problem in problems:
    print(problem)
first = runs_of_study(runs, "fff-table1").runs
speeds = fff.speeds(RUNS)
%% md
## The tables

Of the finished runs that have a study's configuration, one a seed. Runs with fewer epochs or images are shown where there
are no others: their levels are not those to compare. A leaf here ends in a bias, in training and in evaluation, as in the
paper; in the authors' public code `FFF.eval_forward` leaves out that bias, which `training_forward` adds.
%%
for title, words, table in literature(runs, fff.TABLES):
    print(f"{{title}}: {{words}}")
    if table is not None:
        display(table)
%% md
## What patience does

The best G_A of Table 1's cells, had the runs ended after fewer epochs without a better validation accuracy. The paper does
not name its patience.
%%
if first:
    display(fff.patience_table(first))
%% md
## Accuracy against the width of a leaf, and against the time of evaluation
%%
if first:
    display(fff.accuracy_figure(first))
    times = fff.time_figure(first, speeds)
    if times:
        display(times)
    else:
        print(f"{{RUNS}}: no file of `bench inference --output` at these training widths (--model.kind mlp)")
else:
    print(f"{{RUNS}}: no finished runs of configs/studies/fff-table1.cfg")
%% md
## Time of evaluation

Speed-up over the dense network of the same training width, layers alone: published on one A100 with batch 2048, here on
this machine's processor.
%%
if len(speeds):
    display(fff.speed_table(speeds))
    display(fff.speed_figure(speeds))
else:
    print(f"{{RUNS}}: no file of `bench inference --output`")
%% md
## How a tree hardens

Below 0.1, rounding a node's choice costs little. Of the widest trees of Table 1; without any, of the newest run that has
a tree.
%%
trees = fff.hardening_runs(runs)
if trees:
    display(fff.entropy_figure(trees))
else:
    print(f"{{RUNS}}: no run with a tree")
"""

NOTEBOOKS["mixtures"] = f"""\
%% md
# Mixtures of experts: two experiments of the literature

What the importance and load losses do. Shazeer et al. (1701.06538), Table 6: the coefficient of variation of importance
and load under six pairs of weights. There it is a language model; here a small vision transformer, so that the order is
what can be compared. Runs are made by `build/release/switchyard study run configs/studies/shazeer-table6.cfg`.

What experts find in data of clusters. Chen et al. (2208.02813): a mixture of cubic convolutional experts finds the four
clusters (dispatch entropy near 0, of 1.386 where experts know nothing of them), and no single network reaches its
accuracy. Mean +- deviation over seeds. Runs are made by `build/release/switchyard study run configs/studies/chen.cfg`.

Tables are of the finished runs that have a study's configuration, one a seed. Runs with fewer epochs or samples are shown
where there are no others: their levels are not those to compare.
%%
{SETUP}
import switchyard_mixtures as mixtures
from switchyard_studies import literature

problems = []
runs = open_runs(RUNS, problems)
for problem in problems:
    print(problem)
%%
for title, words, table in literature(runs, mixtures.TABLES):
    print(f"{{title}}: {{words}}")
    if table is not None:
        display(table)
"""


def cells_of(text):
    cells = []
    for part in ("\n" + text.strip("\n")).split("\n%%")[1:]:
        kind, _, source = part.partition("\n")
        lines = [f"{line}\n" for line in source.split("\n")]
        lines[-1] = lines[-1][:-1]
        cell = {"cell_type": "markdown" if kind.strip() == "md" else "code", "id": f"cell-{len(cells)}", "metadata": {}}
        if cell["cell_type"] == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append({**cell, "source": lines})
    return cells


def notebook(text):
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells_of(text), "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
             "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, text in NOTEBOOKS.items():
        pathlib.Path(__file__).with_name(f"{name}.ipynb").write_text(notebook(text), encoding="utf-8")
