"""Paths, units and versions of Switchyard's files: lib/io/schema.hpp, which says more; a test compares the two."""

RESULTS_FORMAT, CHECKPOINT_FORMAT = "switchyard-results", "switchyard-checkpoint"
BENCH_FORMAT, STUDY_FORMAT = "switchyard-bench", "switchyard-study"
RESULTS_VERSION, BENCH_VERSION = 3, 1
CONFIG = "config"
MIXTURE_BLOCKS, TREE_BLOCKS = "mixture_blocks", "tree_blocks"
LIBRARIES, DEVICE, PRODUCT_ALGORITHMS = "libraries", "device", "product_algorithms"
# Root attributes of a run's outcome, empty where not measured.
SCORES = ("memorisation_accuracy", "memorisation_epoch", "generalisation_accuracy", "generalisation_epoch",
          "dispatch_entropy")

# path: (units, first version of the results that has it)
STEPS = {
    "steps/step": ("steps", 1),
    "steps/epoch": ("epochs", 1),
    "steps/loss": ("nats", 1),
    "steps/balance_loss": ("1", 1),
    "steps/z_loss": ("1", 2),
    "steps/importance_loss": ("1", 2),
    "steps/load_loss": ("1", 2),
    "steps/consistency_loss": ("1", 2),
    "steps/hardening_loss": ("1", 3),
    "steps/accuracy": ("1", 1),
    "steps/learning_rate": ("1", 1),
    "steps/gradient_norm": ("1", 1),
    "steps/samples_per_second": ("1/s", 1),
    "steps/seconds": ("s", 1),
    "steps/seconds_compute": ("s", 1),
    "steps/seconds_exchange": ("s", 1),
    "steps/seconds_reduce": ("s", 1),
    "steps/seconds_wait": ("s", 1),
}
EVALUATIONS = {
    "evaluations/step": ("steps", 1),
    "evaluations/epoch": ("epochs", 1),
    "evaluations/loss": ("nats", 1),
    "evaluations/accuracy": ("1", 1),
    "evaluations/validation_loss": ("nats", 3),
    "evaluations/validation_accuracy": ("1", 3),
    "evaluations/training_loss": ("nats", 3),
    "evaluations/training_accuracy": ("1", 3),
    "evaluations/seconds": ("s", 1),
}
ROUTING_STEP = {"routing/step": ("steps", 1)}
ROUTING_EXPERT = {  # (rows, layers, experts)
    "routing/load": ("tokens", 1),
    "routing/dropped": ("tokens", 2),
    "routing/weight": ("1", 2),
}
ROUTING_LAYER = {  # (rows, layers)
    "routing/load_cv": ("1", 2),
    "routing/max_over_mean": ("1", 2),
    "routing/load_entropy": ("nats", 1),
    "routing/gate_entropy": ("nats", 2),
    "routing/dead_experts": ("1", 2),
}
TREES_STEP = {"trees/step": ("steps", 1)}
TREES_NODE = {"trees/entropy": ("nats", 3)}  # (rows, layers, nodes)
TREES_LEAF = {"trees/share": ("1", 3)}  # (rows, layers, leaves)
BENCH = {
    "kernels/name": ("1", 1),
    "kernels/shape": ("1", 1),
    "kernels/unit": ("1", 1),
    "kernels/limited_by": ("1", 1),
    "kernels/seconds": ("s", 1),
    "kernels/work": ("FLOP or B", 1),
    "kernels/rate": ("see unit", 1),
    "kernels/limit": ("see unit", 1),
    "kernels/share": ("1", 1),
    "exchange/tokens": ("tokens", 1),
    "exchange/load": ("1", 1),
    "exchange/bytes": ("B", 1),
    "exchange/seconds": ("s", 1),
    "exchange/seconds_alltoallv": ("s", 1),
    "exchange/seconds_counts": ("s", 1),
    "exchange/seconds_kernels": ("s", 1),
    "exchange/seconds_least": ("s", 1),
    "inference/part": ("1", 1),
    "inference/network": ("1", 1),
    "inference/leaf": ("units", 1),
    "inference/threads": ("1", 1),
    "inference/batch": ("1", 1),
    "inference/seconds": ("s", 1),
    "inference/seconds_least": ("s", 1),
    "inference/rate": ("1/s", 1),
    "inference/speed_up": ("1", 1),
    "inference/speed_up_least": ("1", 1),
    "inference/weights": ("B", 1),
    "inference/activations": ("B", 1),
    "exchange/seconds_alltoallv_least": ("s", 1),
}
STUDY_VERSION = 2
STUDY = {  # of `study collect`; without units: text and numbers of ranks
    "table/name": ("", 1),
    "table/state": ("", 1),
    "table/ranks": ("", 1),
    "table/identity": ("", 1),
    "table/digest": ("", 1),
    "table/test_accuracy": ("1", 1),
    "table/test_loss": ("nats", 1),
    "table/seconds_per_epoch": ("s", 1),
    "table/parameters_stored": ("1", 1),
    "table/parameters_active": ("1", 1),
    "table/memorisation_accuracy": ("1", 2),
    "table/memorisation_epoch": ("epochs", 2),
    "table/generalisation_accuracy": ("1", 2),
    "table/generalisation_epoch": ("epochs", 2),
}
