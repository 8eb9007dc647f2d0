"""Which runs are those of a study in configs/studies: told by their configuration, whatever folder they lie in."""

import collections
import dataclasses
import itertools
import pathlib

from switchyard_compare import SEED
from switchyard_results import data_of, parse_config, typed

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "configs/studies"
# Of every key that has an effect on a result, but for the seed and the shape of synthetic data; a test compares them
# with the program's.
DEFAULTS = {
    "run.epochs": 1, "run.steps": 0, "run.measure_training": False,
    "data.kind": "fashion-mnist", "data.limit": 0, "data.validation": 0, "data.validation_seed": 1,
    "data.crop_padding": 0, "data.flip": False, "data.flip_vertical": False, "data.rotation": 0, "data.scaling": 0,
    "data.normalize": True, "data.mean": 0.5, "data.deviation": 0.5,
    "data.clusters_setting": 1, "data.synthetic_seed": 1,
    "model.kind": "vit", "model.layers": 4, "model.width": 64, "model.heads": 4, "model.patch": 7,
    "model.head_hidden": 0, "model.positions": 0,
    "ffn.kind": "dense", "ffn.hidden": 256, "ffn.depth": 0, "ffn.leaf": 32, "ffn.hardening": 3, "ffn.region_leak": 0,
    "ffn.tree": "soft", "ffn.activation": "gelu", "ffn.experts": 4, "ffn.every": 1, "ffn.shared": 0,
    "ffn.router": "switch", "ffn.top_k": 2, "ffn.scores": "softmax", "ffn.renormalise": False,
    "ffn.granularity": "batch", "ffn.draw": "model", "ffn.hash": "position", "ffn.inference": "route",
    "ffn.expert_init": "independent", "ffn.gate_init": 1, "ffn.gate_tilt": 0, "ffn.gate_jitter": 0,
    "ffn.gate_dropout": 0, "ffn.balance_loss": -1, "ffn.z_loss": 0, "ffn.importance_loss": -1, "ffn.load_loss": -1,
    "ffn.noise_floor": 0.01, "ffn.bias_rate": 0.001, "ffn.capacity_train": 0, "ffn.capacity_eval": 0,
    "ffn.capacity_order": "choice", "ffn.expert_dropout": -1,
    "ffn.gating_dropout": 0, "ffn.home_ranks": 1, "ffn.home_experts": 1, "ffn.consistency": 0,
    "ffn.consistency_kind": "thor",
    "train.batch": 128, "train.microbatch": 16, "train.start": "", "train.optimizer": "adam", "train.lr": 0.001,
    "train.weight_decay": 0,
    "train.momentum": 0.9, "train.beta1": 0.9, "train.beta2": 0.999, "train.epsilon": 1e-08, "train.gate_lr": 0.1,
    "train.schedule": "cosine", "train.schedule_epochs": 0, "train.warmup_steps": 0, "train.clip": 0,
    "train.dropout": 0.1, "train.input_dropout": 0, "train.patience": 0, "train.plateau": 0,
    "train.plateau_factor": 0.5, "train.plateau_of": "validation",
    "parallel.reduction": "tree", "compute.device": "cpu", "compute.dtype": "fp32",
    "compute.tf32": False}
# What a version of a study for less time changes. Such runs are shown, and said to be so, where there are no others.
LENGTH_KEYS = ("run.epochs", "run.steps", "data.limit", "train.batch", "train.microbatch")
OTHER_MODELS = ("mlp", "patch_cnn")  # than a vision transformer
TREE_KEYS = ("ffn.depth", "ffn.leaf", "ffn.hardening", "ffn.region_leak", "ffn.tree")
# Keys of mixtures that a router leaves unused.
ROUTER_UNUSED = {"switch": ("ffn.top_k", "ffn.scores", "ffn.granularity", "ffn.draw", "ffn.hash", "ffn.noise_floor",
                            "ffn.bias_rate", "ffn.capacity_order"),
                 "random": ("ffn.top_k", "ffn.scores", "ffn.hash", "ffn.noise_floor", "ffn.bias_rate",
                            "ffn.capacity_order", "ffn.renormalise", "ffn.gate_init", "ffn.gate_tilt",
                            "ffn.gate_jitter", "ffn.gate_dropout")}
MOST_GROUPS, MOST_KEYS = 5, 3  # of what is said of runs that are left out


def is_unused(key, config):
    """Whether what a run computes is the same for any value of the key."""
    section, kind = key.partition(".")[0], config["ffn.kind"]
    if key == "data.synthetic_seed":
        return config["data.kind"] not in ("synthetic", "clusters")
    if key.startswith(("data.synthetic_", "data.clusters_")):
        return not key.startswith(f"data.{config['data.kind']}_")
    if section == "model":
        return key != "model.kind" and config.get("model.kind") in OTHER_MODELS
    if section != "ffn" or key in ("ffn.kind", "ffn.hidden") or key.startswith("ffn.consistency"):
        return False
    if key == "ffn.activation":
        return kind == "fff"
    if key in TREE_KEYS:
        return kind != "fff"
    if key == "ffn.every":
        return kind == "dense"
    return kind != "moe" or key in ROUTER_UNUSED.get(config["ffn.router"], ())


def training_width(config):
    """Hidden units of all leaves, or of all experts, together."""
    if config["ffn.kind"] == "fff" and config["ffn.depth"]:
        return config["ffn.leaf"] * 2 ** config["ffn.depth"]
    return config["ffn.hidden"] * (config["ffn.experts"] if config["ffn.kind"] == "moe" else 1)


def pairs(text):
    """"KEY: V; KEY2: V, W" -> {KEY: [V], KEY2: [V, W]}"""
    return {key.strip(): [typed(value.strip()) for value in values.split(",")]
            for key, values in (part.split(":") for part in text.split(";"))}


def points_of(study):
    """The configurations that configs/studies/STUDY.cfg has, but for the seed: [{key: value}]. Syntax: study.hpp."""
    text = (FOLDER / f"{study}.cfg").read_text(encoding="utf-8")
    given = {key: value for key, value in parse_config(text, study).items() if not key.startswith("study.")}
    lines = [[part.strip() for part in line.split("#")[0].split("=", 1)] for line in text.splitlines() if "=" in line]
    axes = []
    for keys, values in (line[1].split(":") for line in lines if line[0] == "axis"):
        keys = [key.strip() for key in keys.split(",")]
        if keys == [SEED]:
            continue
        if ".." in values:
            first, last = map(int, values.split(".."))
            values = ",".join(map(str, range(first, last + 1)))
        axes.append([dict(zip(keys, (typed(part.strip()) for part in value.split("&")))) for value in values.split(",")])
    ties = [list(map(pairs, line[1].split(" if "))) for line in lines if line[0] == "set"]
    points = []
    for chosen in itertools.product(*axes):
        point = {**DEFAULTS, **given}
        for values in chosen:
            point |= values
        for values, conditions in ties:
            if all(point[key] in allowed for key, allowed in conditions.items()):
                point |= {key: value for key, (value,) in values.items()}
        points.append({key: point[key] for key in DEFAULTS})
    return points


def differences(config, point):
    """What the run has otherwise than a point of the study, among the keys that it uses: {key: value}."""
    if config["ffn.kind"] == "fff":
        config = {**config, "ffn.hidden": training_width(config), "ffn.depth": 0}
    return {key: config[key] for key, value in point.items()
            if config.get(key, value) != value and not is_unused(key, config)}


@dataclasses.dataclass
class Selection:
    runs: list  # finished, of one length, one a seed
    words: str  # how many these are, how they are cut, what was left out


def read_other_data(runs):
    """Of runs whose keys ask for the same data, those that read something else than most of them. Of runs that did not
    record what they read nobody can tell."""
    by_keys = {}
    for run in runs:
        keys = tuple(item for item in sorted(run.config.items()) if item[0].startswith("data.") and item[0] != "data.path")
        if data_of(run):
            by_keys.setdefault(keys, {}).setdefault(data_of(run), []).append(run)
    minorities = (sorted(by_data.values(), key=len)[:-1] for by_data in by_keys.values())
    return {id(run) for minority in minorities for same in minority for run in same}


def runs_of_study(runs, study):
    """The runs of configs/studies/STUDY.cfg among all others."""
    points = points_of(study)
    kinds = ("data.kind", "model.kind")
    same_kind = [run for run in runs if all(run.config.get(key, DEFAULTS[key]) == points[0][key] for key in kinds)]
    by_length, left_out = {}, collections.Counter()
    other_data = read_other_data(same_kind)
    for run in same_kind:
        found = [differences(run.config, point) for point in points]
        nearest = min(range(len(points)), key=lambda i, found=found: (len(found[i].keys() - set(LENGTH_KEYS)),
                                                                      len(found[i])))
        length = {key: value for key, value in found[nearest].items() if key in LENGTH_KEYS}
        others = {key: value for key, value in found[nearest].items() if key not in length}
        if run.attributes.get("status") != "finished":
            left_out["not finished"] += 1
        elif id(run) in other_data:
            left_out["on other data"] += 1
        elif others:
            left_out[f"with {words_of(others)}"] += 1
        else:
            by_length.setdefault(words_of(length, len(LENGTH_KEYS)), {}).setdefault((nearest, run.config[SEED]), []).append(run)
    if not by_length:
        return Selection([], sentences(f"no finished runs of configs/studies/{study}.cfg", left_out))
    length = "" if "" in by_length else max(by_length, key=lambda words: len(by_length[words]))
    for words, cells in by_length.items():
        number = sum(map(len, cells.values()))
        if words != length:
            left_out[f"with {words or 'the length of the study'}"] += number
        elif number > len(cells):
            left_out["of a seed that is there already"] += number - len(cells)
    chosen = [found[0] for found in by_length[length].values()]
    but = f", but with {length}" if length else ""
    return Selection(chosen, sentences(f"{len(chosen)} runs of configs/studies/{study}.cfg{but}", left_out))


def words_of(values, most=MOST_KEYS):
    """train.lr 0.1, ffn.leaf 4 and 2 other keys"""
    words = ", ".join(f"{key} {value}" for key, value in itertools.islice(values.items(), most))
    more = len(values) - most
    return words + (f" and {more} other key{'s' * (more > 1)}" if more > 0 else "")


def sentences(first, left_out):
    if not left_out:
        return f"{first}."
    parts = [f"{number} {words}" for words, number in left_out.most_common(MOST_GROUPS)]
    rest = sum(left_out.values()) - sum(number for _, number in left_out.most_common(MOST_GROUPS))
    return f"{first}. Left out: {'; '.join(parts + ([f'{rest} others'] if rest else []))}."


def literature(runs, tables):
    """[(title, what is in it and what is not, table; None where no run is of its study)] of [(title, study, function
    from runs to a table)]."""
    found = [(title, runs_of_study(runs, study), table) for title, study, table in tables]
    return [(title, selection.words, table(selection.runs) if selection.runs else None)
            for title, selection, table in found]
