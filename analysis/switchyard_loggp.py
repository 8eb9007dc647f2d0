"""How long messages take: a LogGP model (Alexandrov et al. 1995) fitted to `bench exchange`, and what it predicts of a
training step.

An all-to-all of P ranks, in which the busiest one sends b bytes to the others, takes
    T(P, b) = (L + 2 o) + (P - 2) g + b G
L: latency, o: a processor's work for a message, g: the gap between messages, G: seconds a byte. End to end, L and 2 o
are measured together. The exchange forward is four such operations (counts, rows, their ids, rows back), backward two;
what ranks sum together takes 2 log2(W) messages and 2 (W - 1) / W of its bytes (recursive halving and doubling).
"""

import dataclasses
import math

import numpy as np
import pandas as pd

from switchyard_results import open_benches

FORWARD, BACKWARD = 4, 2  # operations
BYTES = 4  # of a number


@dataclasses.dataclass
class Network:
    name: str
    latency: float  # L + 2 o, seconds
    gap: float  # g, seconds
    byte: float  # G, seconds

    def all_to_all(self, ranks, num_bytes, operations):
        if ranks < 2:
            return 0.0
        return operations * (self.latency + (ranks - 2) * self.gap) + num_bytes * self.byte

    def reduction(self, ranks, num_bytes):
        if ranks < 2:
            return 0.0
        return 2 * math.log2(ranks) * self.latency + 2 * (ranks - 1) / ranks * num_bytes * self.byte

    def words(self):
        return (f"{self.name}: L + 2 o = {self.latency * 1e6:.2f} us, g = {self.gap * 1e6:.2f} us, "
                f"1 / G = {1e-9 / self.byte:.2f} GB/s")


def exchange_benches(folder):
    """The rows of every `bench exchange --output` file below the folder, with columns ranks (of the experts), file."""
    tables = [table.assign(ranks=int(attributes["experts_over"]), file=file.name, host=attributes["host"])
              for file, table, attributes in open_benches(folder, "exchange")]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def fit(bench):
    """(Network, bench with a column predicted). Least squares of relative errors to the fastest steps, no term < 0."""
    columns = [np.full(len(bench), FORWARD), FORWARD * (bench["ranks"] - 2), bench["bytes"]]
    terms = np.stack(columns, axis=1).astype(float)
    measured = bench["seconds_least"].to_numpy()
    used = [term for term in range(3) if terms[:, term].any()]
    while True:
        values, *_ = np.linalg.lstsq(terms[:, used] / measured[:, None], np.ones(len(measured)), rcond=None)
        if (values >= 0).all():
            break
        used.remove(used[int(values.argmin())])
    whole = np.zeros(3)
    whole[used] = values
    network = Network(f"fitted to {', '.join(bench['file'].unique())} ({bench['host'].iloc[0]})",
                      *np.maximum(whole, [0, 0, 1e-15]))
    return network, bench.assign(predicted=terms @ whole)


@dataclasses.dataclass
class Step:
    """What a training step of a run has to do, of all ranks together; `compute`: of one microbatch, measured."""

    microbatches: int
    tokens: int  # of a microbatch
    width: int
    mixtures: int  # blocks that have experts
    experts: int
    visits: float  # experts that a token goes to
    dense: float  # parameters that every rank holds
    expert: float  # parameters of all experts
    compute: float  # seconds


def step_of(row, cores):
    """The step of a run, a row of scaling_table(): of one whose ranks had a core each, where there is one."""
    height, width = map(int, row["data"].split(" ")[0].split("x")[:2])
    tokens = (height // row["model.patch"]) * (width // row["model.patch"]) + 1
    moe = row["ffn.kind"] == "moe"
    router, experts = row["ffn.router"], row["ffn.experts"] if moe else 1
    visits = {"top_k": row["ffn.top_k"], "noisy_top_k": row["ffn.top_k"], "loss_free": row["ffn.top_k"],
              "expert_choice": row["ffn.capacity_train"] or 2}.get(router, 1)
    stored, active = row["parameters_stored"], row["parameters_active"]
    expert = (stored - active) / (experts - visits) * experts if moe and experts > visits else 0
    microbatches = row["train.batch"] // row["train.microbatch"]
    passes = 2 if row.get("ffn.consistency", 0) else 1
    sharing = max(1, row["ranks"] * row["threads"] / cores)
    return Step(microbatches, row["train.microbatch"] * tokens * passes, row["model.width"], row["mixtures"], experts,
                visits, stored - expert, expert, row["compute"] * row["ranks"] / microbatches / sharing)


def predict(step, network, ranks, experts_over, cores=None, microbatches=None):
    """Seconds of a step by part. cores: where ranks share them; microbatches: of all ranks, the step's unless told."""
    own = (microbatches or step.microbatches) / ranks
    rows = step.visits * step.tokens * (1 - 1 / experts_over)  # that leave a rank
    there_and_back = 2 * rows * step.width * BYTES
    exchange = (network.all_to_all(experts_over, there_and_back + rows * BYTES, FORWARD) +
                network.all_to_all(experts_over, there_and_back, BACKWARD))
    return {"compute": own * step.compute * max(1, ranks / cores if cores else 1),
            "exchange": own * step.mixtures * exchange,
            "reduce": network.reduction(ranks, step.dense * BYTES) +
                      network.reduction(ranks // experts_over, step.expert / experts_over * BYTES)}
