"""Reads what Switchyard writes: results of runs, studies and benchmarks, as pandas tables. h5py, NumPy, pandas.

    runs = open_runs("runs")               # a folder of runs or a study's, a file, or a list of these
    table = table_of_runs(runs)            # one row a run: outcome, attributes, the configuration's keys as columns
    steps_of(runs), evaluations_of(runs), routing_of(runs)    # long form, the run's name in a column

switchyard_compare.py compares such tables; switchyard_folders.py finds the files, switchyard_h5.py opens them;
switchyard_schema.py has the paths and units.
"""

import dataclasses
import math
import pathlib

import numpy as np
import pandas as pd
from switchyard_compare import DATA
from switchyard_folders import find_files
from switchyard_h5 import ResultsError, check_format, column_name, open_h5, read_columns, reading, text_of
from switchyard_schema import (BENCH, BENCH_FORMAT, BENCH_VERSION, CONFIG, EVALUATIONS, MIXTURE_BLOCKS, RESULTS_FORMAT,
                               RESULTS_VERSION, ROUTING_EXPERT, ROUTING_LAYER, ROUTING_STEP, SCORES, STEPS, TREE_BLOCKS,
                               TREES_LEAF, TREES_NODE, TREES_STEP)


@dataclasses.dataclass
class Run:
    """One results file, as it stood when it was opened. `steps` and the like are read when first asked for."""

    path: pathlib.Path
    name: str
    version: int
    attributes: dict  # of the root, as text
    config: dict  # "ffn.experts": 4, as number, truth or text
    being_written: bool  # open in a program that trains, or left so by one that was killed

    def steps(self):
        return self._rows(STEPS)

    def evaluations(self):
        return self._rows(EVALUATIONS)

    def has_routing(self):
        """False also for files of version 1, which say less of it."""
        with open_h5(self.path) as file:
            return "routing/step" in file and MIXTURE_BLOCKS in self.attributes

    def blocks(self):
        """The transformer blocks that have a mixture: the layers of routing/*, in this order."""
        return self._blocks(MIXTURE_BLOCKS)

    def _blocks(self, attribute):
        return [int(block) for block in self.attributes.get(attribute, "").split(",") if block]

    def routing(self):
        """A row for each step, block and expert: load (tokens), share (1 is even), dropped, weight."""
        table = self._long(ROUTING_STEP, ROUTING_EXPERT, MIXTURE_BLOCKS, ["step", "block", "expert"])
        if table.empty:
            return table
        mean = table.groupby(["step", "block"])["load"].transform("mean")
        return table.assign(share=table["load"] / mean)

    def routing_layers(self):
        """A row for each step and block: load_cv, max_over_mean, load_entropy, gate_entropy, dead_experts."""
        return self._long(ROUTING_STEP, ROUTING_LAYER, MIXTURE_BLOCKS, ["step", "block"])

    def has_trees(self):
        with open_h5(self.path) as file:
            return "trees/step" in file

    def tree_nodes(self):
        """A row for each step, block and node of its tree: entropy (nats) of its choice, mean over tokens."""
        return self._long(TREES_STEP, TREES_NODE, TREE_BLOCKS, ["step", "block", "node"])

    def tree_leaves(self):
        """A row for each step, block and leaf of its tree: its share in a token's output, mean over tokens."""
        return self._long(TREES_STEP, TREES_LEAF, TREE_BLOCKS, ["step", "block", "leaf"])

    def check(self):
        """Reads every column: a ResultsError where one is damaged."""
        with open_h5(self.path) as file, reading(self.path):
            for schema in [STEPS, EVALUATIONS,
                           *([ROUTING_STEP | ROUTING_EXPERT | ROUTING_LAYER] if "routing/step" in file else []),
                           *([TREES_STEP | TREES_NODE | TREES_LEAF] if "trees/step" in file else [])]:
                read_columns(file, self.path, schema, self.version)

    def _rows(self, schema):
        with open_h5(self.path) as file:
            return pd.DataFrame(read_columns(file, self.path, schema, self.version))

    def _long(self, step, schema, attribute, index):
        group = next(iter(step)).split("/")[0]
        with open_h5(self.path) as file:
            if group not in file:
                return pd.DataFrame(columns=[*index, *map(column_name, schema)])
            columns = read_columns(file, self.path, {**step, **schema}, self.version)
        steps = columns.pop("step")
        shape = next(iter(columns.values())).shape
        axes = [steps, self._blocks(attribute) or range(shape[1]), *(range(extent) for extent in shape[2:])]
        if len(axes[1]) != shape[1]:
            raise ResultsError(f"{self.path}: is damaged: attribute {attribute} names {len(axes[1])} blocks, "
                               f"{group}/* has {shape[1]}")
        table = pd.MultiIndex.from_product(axes, names=index).to_frame(index=False)
        for name, values in columns.items():
            table[name] = values.reshape(-1)
        return table


def parse_config(text, path):
    """INI text as Switchyard stores it -> {"section.key": value}."""
    values, section = {}, ""
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif line:
            key, equals, value = map(str.strip, line.partition("="))
            if not equals or not section:
                raise ResultsError(f"{path}: is damaged: dataset {CONFIG} has the line {line!r}")
            values[f"{section}.{key}"] = typed(value)
    return values


def typed(value):
    if value in ("true", "false"):
        return value == "true"
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            pass
    return value


def open_run(path):
    """The run of a results file, or of the folder that holds a results.h5."""
    path = pathlib.Path(path)
    path = path / "results.h5" if path.is_dir() else path
    with open_h5(path) as file, reading(path):
        version = check_format(file, path, RESULTS_FORMAT, RESULTS_VERSION)
        attributes = {name: text_of(value) for name, value in file.attrs.items()}
        config = parse_config(text_of(file[CONFIG][()]), path)
        return Run(path, attributes.get("name") or path.parent.name, version, attributes, config, file.swmr_mode)


def open_runs(where, problems=None):
    """All runs of a folder (of any depth: a study's too), of a file, or of a list of these. Names are made unique.

    A run counts once, whatever links lead to it (find_files), and so does one whose file was copied. With a list for
    `problems`, copies and files that are damaged anywhere are left out, and the list says why; without one, those that
    cannot be opened raise.
    """
    files = find_files(where)
    if not files:
        raise ResultsError(f"{where}: no results.h5 in it or below: give a folder in which `switchyard train` or "
                           "`switchyard study run` wrote (run.out)")
    runs, left_out = [], [] if problems is None else problems
    for file in files:
        try:
            run = open_run(file)
            if problems is not None:
                run.check()
            if original := next((other for other in runs if is_copy(run, other)), None):
                left_out.append(f"{file}: is a copy of {original.path}, which counts once")
            else:
                runs.append(run)
        except ResultsError as error:
            if problems is None:
                raise
            problems.append(str(error))
    names = [run.name for run in runs]
    for run, name in zip(runs, names):
        if names.count(name) > 1:
            run.name = "/".join(run.path.parts[-3:-1])
    names = [run.name for run in runs]
    for run, name in zip(runs, names):
        if names.count(name) > 1:
            run.name = str(run.path.parent)
    return runs


def is_copy(run, other):
    """Of one run's file: the configuration, the digest and all that was logged of a step agree, its seconds too. A run
    that is made again has the same digest, and takes other times."""
    if (run.config, run.attributes.get("digest")) != (other.config, other.attributes.get("digest")):
        return False
    steps = run.steps()
    return len(steps) > 0 and steps.equals(other.steps())


def state_of(run):
    if run.being_written:
        return "running"  # or its writer was killed, which nothing in the file tells apart
    status = run.attributes.get("status", "")
    return "ended early" if status == "running" else status


def data_of(run):
    """What the data held that a run read, whatever file they lay in: the first digits of each split's hash. Empty where
    the run was made before results recorded it."""
    splits = (run.attributes.get(f"data_{split}", "") for split in ("train", "validation", "test"))
    return " ".join(split.rpartition(" ")[2][:12] for split in splits if split)


def table_of_runs(runs):
    """One row a run. test_accuracy and test_loss are of the last evaluation; seconds_per_epoch is of training alone;
    memorisation_*, generalisation_* and dispatch_entropy (nats) are NaN where the run did not measure them. Beside the
    configuration's keys stands data.hash (data_of), since a result depends on it as well."""
    rows = []
    for run in runs:
        steps, evaluations = run.steps(), run.evaluations()
        last = evaluations.iloc[-1] if len(evaluations) else None
        rows.append({
            "run": run.name, "state": state_of(run), "path": str(run.path),
            "digest": run.attributes.get("digest", ""),
            **{name: int(run.attributes.get(name) or 0)
               for name in ("ranks", "threads", "parameters_stored", "parameters_active")},
            "steps": int(steps["step"].iloc[-1]) if len(steps) else 0,
            "epochs": steps["epoch"].iloc[-1] if len(steps) else 0.0,
            "test_accuracy": last["accuracy"] if last is not None else math.nan,
            "best_accuracy": evaluations["accuracy"].max() if last is not None else math.nan,
            "test_loss": last["loss"] if last is not None else math.nan,
            "seconds_per_epoch": seconds_per_epoch(run, steps),
            **{name: float(run.attributes.get(name) or math.nan) for name in SCORES},
            "seconds_per_step": steps["seconds"].median() if len(steps) else math.nan,
            **run.config, DATA: data_of(run),
        })
    return pd.DataFrame(rows)


def seconds_per_epoch(run, steps):
    """As the run recorded it at its end; until then from the median step."""
    recorded = run.attributes.get("seconds_per_epoch")
    if recorded:
        return float(recorded)
    if not len(steps) or steps["epoch"].iloc[-1] == 0:
        return math.nan
    return steps["seconds"].median() * steps["step"].iloc[-1] / steps["epoch"].iloc[-1]


def long_form(runs, rows):
    return pd.concat([rows(run).assign(run=run.name) for run in runs], ignore_index=True) if runs else pd.DataFrame()


def steps_of(runs):
    return long_form(runs, Run.steps)


def evaluations_of(runs):
    return long_form(runs, Run.evaluations)


def routing_of(runs):
    return long_form(runs, Run.routing)


def open_benches(folder, benchmark):
    """[(file, table, attributes)] of what `bench BENCHMARK --output` wrote below the folder, copies left out."""
    found = []
    for file in find_files(folder, "*.h5"):
        if file.name == "results.h5" or file.name.startswith("checkpoint-"):
            continue
        try:
            table, attributes = open_bench(file)
        except ResultsError:
            continue  # another kind of file
        is_copy = any(table.equals(other) and attributes == others for _, other, others in found)
        if attributes["benchmark"] == benchmark and not is_copy:
            found.append((file, table, attributes))
    return found


def open_bench(path):
    """A benchmark's table and its root attributes, as (DataFrame, dict); the configuration is attribute "config"."""
    with open_h5(path) as file, reading(path):
        check_format(file, path, BENCH_FORMAT, BENCH_VERSION)
        attributes = {name: text_of(value) for name, value in file.attrs.items()}
        attributes[CONFIG] = parse_config(text_of(file[CONFIG][()]), path)
        known = {name: file[name][:] for name in BENCH if name in file}
    table = pd.DataFrame({column_name(name): np.char.decode(values) if values.dtype.kind == "S" else values
                          for name, values in known.items()})
    return table, attributes
