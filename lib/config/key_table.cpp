// Every key of a configuration: where its value lies, what it takes, and what --help says of it.
#include "config/keys.hpp"
#include "core/router_names.hpp"

namespace switchyard {

namespace {

Allowed from(double lowest, double highest) { return {.lowest = lowest, .highest = highest}; }
Allowed at_least(double lowest) { return {.lowest = lowest}; }
Allowed below_one() { return from(0, 0.9999999); }  // which is below 1 as a float, too
Allowed one_of(std::vector<std::string> choices) { return {.choices = std::move(choices)}; }
Allowed anything() { return {}; }
Allowed anything_or_nothing() { return {.may_be_empty = true}; }

// From 0 on, or -1 for a value that the key's text tells.
Allowed weight_or_own(double highest = 1e6) { return {.lowest = 0, .highest = highest, .or_minus_one = true}; }

constexpr double kMany = 1e9;

}  // namespace

std::vector<Key> keys_of(Config& c) {
  constexpr Effect kResult = Effect::kResult, kRounding = Effect::kRounding, kNone = Effect::kNone;
  return {
      {"run.name", &c.run.name, anything(), kNone, "name of the run; its files lie in run.out/run.name"},
      {"run.out", &c.run.out, anything(), kNone, "folder that holds the runs"},
      {"run.seed", &c.run.seed, anything(), kResult, "seed of every random number of the run"},
      {"run.epochs", &c.run.epochs, from(1, 1e6), kResult, "passes over the training data"},
      {"run.steps", &c.run.steps, from(0, kMany), kResult, "above 0: train so many steps instead of run.epochs"},
      {"run.log_every", &c.run.log_every, from(1, kMany), kNone,
       "steps between rows of steps/* in the results; evaluated steps have one, too"},
      {"run.eval_every", &c.run.eval_every, from(0, 1e6), kNone, "epochs between evaluations; 0: only at the end"},
      {"run.measure_training", &c.run.measure_training, anything(), kResult,
       "evaluations also measure the whole training split, in evaluation mode and without augmentation"},

      {"data.kind", &c.data.kind,
       one_of({"fashion-mnist", "mnist", "cifar10", "cifar100", "hdf5", "synthetic", "clusters"}), kResult,
       "which data, and so the format of its files; clusters: 4 patches of 50 real numbers, drawn from 4 clusters "
       "(Chen et al.)"},
      {"data.path", &c.data.path, anything_or_nothing(), kNone,
       "folder of the data, or its HDF5 file; empty: the place where a package puts it, or data/KIND"},
      {"data.limit", &c.data.limit, from(0, kMany), kResult, "above 0: only the first so many samples of each split"},
      {"data.validation", &c.data.validation, below_one(), kResult,
       "this part of the training samples, drawn at random, is kept apart as a validation split; 0: none"},
      {"data.validation_seed", &c.data.validation_seed, anything(), kResult,
       "seed of the validation split, apart from run.seed so that repeated runs see the same split"},
      {"data.crop_padding", &c.data.crop_padding, from(0, 1024), kResult,
       "train on random crops of images padded by so many pixels; 0: no crops"},
      {"data.flip", &c.data.flip, anything(), kResult, "train on images flipped left to right at random"},
      {"data.flip_vertical", &c.data.flip_vertical, anything(), kResult,
       "train on images flipped top to bottom at random"},
      {"data.rotation", &c.data.rotation, from(0, 180), kResult,
       "train on images turned about their centre by random angles from -rotation to rotation, degrees"},
      {"data.scaling", &c.data.scaling, from(0, 0.99), kResult,
       "train on images enlarged about their centre by random factors from 1 - scaling to 1 + scaling"},
      {"data.normalize", &c.data.normalize, anything(), kResult,
       "pixels become (v - data.mean) / data.deviation, with v in 0..1"},
      {"data.mean", &c.data.mean, from(-1e6, 1e6), kResult, "see data.normalize"},
      {"data.deviation", &c.data.deviation, from(1e-6, 1e6), kResult, "see data.normalize"},
      {"data.synthetic_samples", &c.data.synthetic_samples, from(1, 1e7), kResult,
       "training samples of synthetic data; the test split has a quarter as many"},
      {"data.synthetic_size", &c.data.synthetic_size, from(1, 4096), kResult,
       "height and width of synthetic images, pixels"},
      {"data.synthetic_channels", &c.data.synthetic_channels, from(1, 4), kResult, "channels of synthetic images"},
      {"data.synthetic_classes", &c.data.synthetic_classes, from(2, 65536), kResult, "classes of synthetic data"},
      {"data.clusters_setting", &c.data.clusters_setting, from(1, 4), kResult,
       "clusters: feature noise up to 3 (settings 1 and 2) or 2 (3 and 4), Gaussian noise of deviation 1 (1 and 3) or "
       "2 (2 and 4)"},
      {"data.synthetic_seed", &c.data.synthetic_seed, anything(), kResult,
       "seed of synthetic data and clusters, apart from run.seed so that repeated runs see the same data"},

      {"model.kind", &c.model.kind, one_of({"vit", "mlp", "patch_cnn"}), kResult,
       "vit: a pre-norm vision transformer with a CLS token; mlp: flattened images, one network of ffn, classes; "
       "patch_cnn: convolutional networks of ffn.hidden filters over the patches of data.kind = clusters"},
      {"model.layers", &c.model.layers, from(1, 1024), kResult, "transformer blocks (vit, as are the next five)"},
      {"model.width", &c.model.width, from(1, 65536), kResult, "features per token"},
      {"model.heads", &c.model.heads, from(1, 1024), kResult, "attention heads; they divide model.width"},
      {"model.patch", &c.model.patch, from(1, 4096), kResult,
       "side of a square patch, pixels; it divides the image's height and width"},
      {"model.head_hidden", &c.model.head_hidden, from(0, 1048576), kResult,
       "hidden width of the classification head; 0: one linear layer"},
      {"model.positions", &c.model.positions, from(0, 1048576), kResult,
       "rows of the table of learned positions; 0: as many as there are patches"},

      {"ffn.kind", &c.ffn.kind, one_of({"dense", "moe", "fff"}), kResult,
       "dense: one feed-forward network; moe: experts; fff: a fast feedforward network, a tree over small leaves"},
      {"ffn.hidden", &c.ffn.hidden, from(1, 1048576), kResult, "hidden width of the network, or of each expert"},
      {"ffn.depth", &c.ffn.depth, from(0, 16), kResult,
       "levels of the tree, which has 2^depth leaves, whatever ffn.hidden; 0: so many that leaves are ffn.hidden units "
       "wide together (fff)"},
      {"ffn.leaf", &c.ffn.leaf, from(1, 65536), kResult, "hidden width of each leaf (fff)"},
      {"ffn.hardening", &c.ffn.hardening, from(0, 1e6), kResult,
       "weight of the mean entropy of the nodes' choices, which makes them hard (fff)"},
      {"ffn.region_leak", &c.ffn.region_leak, from(0, 1), kResult,
       "probability that a token finds the children of a node swapped, in training (fff)"},
      {"ffn.tree", &c.ffn.tree, one_of({"soft", "hard"}), kResult,
       "soft: training sends a token to every leaf, by its share; hard: to one leaf, as evaluation does, and nodes "
       "stay "
       "as they are (the paper's code, train_hardened, goes on training them by the hardening loss) (fff)"},
      {"ffn.activation", &c.ffn.activation, one_of({"gelu", "relu", "cube", "identity"}), kResult,
       "what hidden units do (dense, moe; those of fff are relu)"},
      {"ffn.experts", &c.ffn.experts, from(1, 65536), kResult, "experts per block (moe)"},
      {"ffn.every", &c.ffn.every, from(1, 1024), kResult,
       "every so many blocks have a mixture or a tree, beginning with block ffn.every - 1; the others are dense (moe, "
       "fff)"},
      {"ffn.shared", &c.ffn.shared, from(0, 1024), kResult,
       "experts that every token visits with weight 1, beside the routed ones (moe)"},
      {"ffn.router", &c.ffn.router, one_of({kRouterNames.begin(), kRouterNames.end()}), kResult,
       "which expert a token goes to (moe): see Routers below"},
      {"ffn.top_k", &c.ffn.top_k, from(1, 65536), kResult,
       "experts that a token visits (top_k, noisy_top_k, loss_free)"},
      {"ffn.scores", &c.ffn.scores, one_of({"softmax", "sigmoid"}), kResult,
       "what the gate makes of its logits; sigmoid: top_k and loss_free alone"},
      {"ffn.renormalise", &c.ffn.renormalise, anything(), kResult,
       "divide the weights of a token's experts by their sum (switch, top_k, loss_free; noisy_top_k always does)"},
      {"ffn.granularity", &c.ffn.granularity, one_of({"batch", "sample", "token", "balanced"}), kResult,
       "random routing: what shares a draw; balanced: a random permutation gives every expert equally many tokens"},
      {"ffn.draw", &c.ffn.draw, one_of({"model", "layer"}), kResult,
       "random routing: one draw for all layers, or each layer its own"},
      {"ffn.hash", &c.ffn.hash, one_of({"position", "content"}), kResult,
       "hash routing: by the token's place in its image (even), or by what its patch looks like"},
      {"ffn.inference", &c.ffn.inference, one_of({"route", "average"}), kResult,
       "evaluate with the router, or with the mean of the experts' weights (moe)"},
      {"ffn.expert_init", &c.ffn.expert_init, one_of({"same", "independent"}), kResult,
       "whether the experts of a block start equal (moe)"},
      {"ffn.gate_init", &c.ffn.gate_init, from(0, 1e6), kResult,
       "times the usual start of a gate's weights (Switch Transformer: 0.1)"},
      {"ffn.gate_tilt", &c.ffn.gate_tilt, from(-1e6, 1e6), kResult,
       "added to the start of the gate's logit for expert 0: an unlucky start, in which it takes most tokens"},
      {"ffn.gate_jitter", &c.ffn.gate_jitter, below_one(), kResult,
       "in training the gate's input is multiplied by random numbers from 1 - gate_jitter to 1 + gate_jitter"},
      {"ffn.gate_dropout", &c.ffn.gate_dropout, from(0, 0.99), kResult,
       "dropout of the gate's input in training (Switch Transformer, ST-MoE)"},
      {"ffn.balance_loss", &c.ffn.balance_loss, weight_or_own(), kResult,
       "weight of the load-balancing loss; -1: the router's own, 0.01 for switch and top_k, 0 for others"},
      {"ffn.z_loss", &c.ffn.z_loss, from(0, 1e6), kResult, "weight of the z-loss of the gate's logits (ST-MoE: 0.001)"},
      {"ffn.importance_loss", &c.ffn.importance_loss, weight_or_own(), kResult,
       "weight of the importance loss, CV^2 (population variance over squared mean) of the experts' sums of weights; "
       "-1: the router's own, 0.1 for noisy_top_k, 0 for others"},
      {"ffn.load_loss", &c.ffn.load_loss, weight_or_own(), kResult,
       "weight of the smooth load loss of noisy_top_k, CV^2 as above; -1: the router's own, 0.1 there"},
      {"ffn.noise_floor", &c.ffn.noise_floor, from(0, 1e6), kResult,
       "noisy_top_k: added to the standard deviation of the noise, so that the load loss keeps a bounded slope where "
       "the learned part vanishes; 0: as in Shazeer et al."},
      {"ffn.bias_rate", &c.ffn.bias_rate, from(0, 1e6), kResult,
       "loss_free: how far a step moves the bias of an expert that has too many tokens or too few"},
      {"ffn.capacity_train", &c.ffn.capacity_train, from(0, 1e6), kResult,
       "an expert takes at most so many times an even share of a microbatch's tokens; the others are dropped: the "
       "residual alone carries them; 0: no limit (expert_choice: experts per token on average; 0: 2)"},
      {"ffn.capacity_eval", &c.ffn.capacity_eval, from(0, 1e6), kResult,
       "the same in evaluation (expert_choice; 0: as in training)"},
      {"ffn.capacity_order", &c.ffn.capacity_order, one_of({"choice", "token"}), kResult,
       "which of a token's several choices (top_k, noisy_top_k, loss_free) a capacity has room for; choice: the first "
       "choices of all the microbatch's tokens, then the second ones (GShard); token: all choices of a token, then the "
       "next token's"},
      {"ffn.expert_dropout", &c.ffn.expert_dropout, weight_or_own(0.99), kResult,
       "dropout of hidden units inside experts; -1: train.dropout"},
      {"ffn.gating_dropout", &c.ffn.gating_dropout, from(0, 1), kResult,
       "probability of a step whose tokens stay with the experts of their home (Gating Dropout); capacities are shares "
       "of "
       "the home then, and balance, importance and load losses are left out. Where the ranks are not laid out as "
       "ffn.home_ranks and ffn.home_experts say, results are the same, but tokens travel"},
      {"ffn.home_ranks", &c.ffn.home_ranks, from(1, 65536), kResult,
       "gating dropout: ranks of the layout in which a microbatch has its home; they divide a batch's microbatches"},
      {"ffn.home_experts", &c.ffn.home_experts, from(1, 65536), kResult,
       "gating dropout: expert-parallel size of that layout; it divides ffn.experts and ffn.home_ranks"},
      {"ffn.consistency", &c.ffn.consistency, from(0, 1e6), kResult,
       "above 0: every sample passes twice, with other random draws, and this weighs the symmetric Kullback-Leibler "
       "divergence of the two answers; steps/loss is the mean cross entropy of both"},
      {"ffn.consistency_kind", &c.ffn.consistency_kind, one_of({"thor", "adamix"}), kResult,
       "thor: both passes learn the labels, by the gradient of the sum of their losses; adamix: the first alone, and "
       "the divergence moves only one side at a time"},

      {"train.batch", &c.train.batch, from(1, 1048576), kResult, "samples per step, over all ranks"},
      {"train.microbatch", &c.train.microbatch, from(1, 65536), kResult,
       "samples computed together, the unit that ranks share out; it divides train.batch"},
      {"train.start", &c.train.start, anything_or_nothing(), kResult,
       "checkpoint of the same model whose parameters the training begins with, at step 0 and with a fresh optimiser; "
       "--resume goes on from the run's own; empty: parameters drawn from run.seed"},
      {"train.optimizer", &c.train.optimizer, one_of({"adam", "adamw", "sgd", "normalized"}), kResult,
       "adam: weight decay in the gradient; adamw: apart from it; sgd: with momentum; normalized: each expert's "
       "gradient divided by the sum of the norms of its parameters' gradients"},
      {"train.lr", &c.train.lr, from(0, 1e6), kResult, "learning rate at its highest"},
      {"train.weight_decay", &c.train.weight_decay, from(0, 1e6), kResult,
       "weight decay, of all parameters that train: biases, norms and gates, too"},
      {"train.momentum", &c.train.momentum, below_one(), kResult, "momentum (sgd)"},
      {"train.beta1", &c.train.beta1, below_one(), kResult, "decay of the mean gradient (adam, adamw)"},
      {"train.beta2", &c.train.beta2, below_one(), kResult, "decay of the mean squared gradient (adam, adamw)"},
      {"train.epsilon", &c.train.epsilon, at_least(1e-30), kResult, "added to the denominator (adam, adamw)"},
      {"train.gate_lr", &c.train.gate_lr, from(0, 1e6), kResult,
       "learning rate, along the same schedule, of what is not in experts (normalized)"},
      {"train.schedule", &c.train.schedule, one_of({"constant", "cosine"}), kResult,
       "learning rate after the warm-up: as it is, or along half a cosine to 0"},
      {"train.schedule_epochs", &c.train.schedule_epochs, from(0, 1e6), kResult,
       "length of the cosine in epochs; 0: the run's own length"},
      {"train.warmup_steps", &c.train.warmup_steps, from(0, kMany), kResult,
       "steps over which the learning rate rises linearly from 0; more than the run has: it never reaches train.lr"},
      {"train.clip", &c.train.clip, at_least(0), kResult, "largest global norm of the gradient; 0: no clipping"},
      {"train.dropout", &c.train.dropout, from(0, 0.99), kResult,
       "probability of dropping an attention weight, a hidden unit or a residual unit"},
      {"train.input_dropout", &c.train.input_dropout, from(0, 0.99), kResult,
       "probability of dropping a unit of the tokens, positions added, that the first block sees (vit)"},
      {"train.patience", &c.train.patience, from(0, 1e6), kResult,
       "after so many epochs without a better accuracy, on the training split with run.measure_training and on the "
       "validation split with data.validation, its score stands, and the run ends when all stand; 0: not before "
       "run.epochs"},
      {"train.plateau", &c.train.plateau, from(0, 1e6), kResult,
       "multiply the learning rate, whatever train.schedule gives, by train.plateau_factor after so many epochs "
       "without "
       "a better accuracy, and count anew; 0: never"},
      {"train.plateau_factor",
       &c.train.plateau_factor,
       {.lowest = 0, .highest = 1, .lowest_open = true, .highest_open = true},
       kResult,
       "see train.plateau"},
      {"train.plateau_of", &c.train.plateau_of, one_of({"training", "validation"}), kResult,
       "the split whose accuracy train.plateau goes by: training needs run.measure_training, validation "
       "data.validation"},

      {"parallel.experts", &c.parallel.experts, from(1, 65536), kNone,
       "expert-parallel size: ranks that share out the experts; it divides ffn.experts and the number of ranks"},
      {"parallel.threads", &c.parallel.threads, from(1, 1024), kNone, "threads per rank"},
      {"parallel.reduction", &c.parallel.reduction, one_of({"tree", "library"}), kResult,
       "tree: sums do not depend on the number of ranks; library: MPI's or NCCL's own all-reduce, where they may"},
      {"parallel.exchange", &c.parallel.exchange, one_of({"auto", "nccl", "host"}), kNone,
       "how arrays of GPUs go from rank to rank: nccl; host: MPI, by way of host memory; auto: nccl where every rank "
       "has a GPU of its own, else host, with a warning"},
      {"parallel.overlap", &c.parallel.overlap, one_of({"auto", "on", "off"}), kNone,
       "compute while arrays travel: gradients are summed over ranks layer by layer, and two microbatches of a rank "
       "take turns where tokens go to experts, or a GPU is awaited, with room for the activations of both; auto: on "
       "GPUs, and between them where nccl can"},
      {"parallel.timeout", &c.parallel.timeout, from(1, 1e6), kNone,
       "seconds that a collective waits for a rank before the run is given up, MPI's start and end included; time "
       "in which the waiting rank itself is stopped does not count"},

      {"compute.device", &c.compute.device, one_of({"cpu", "cuda"}), kRounding,
       "where kernels run; cuda: on GPUs, one for each rank, in a build with CUDA"},
      {"compute.dtype", &c.compute.dtype, one_of({"fp32", "bf16"}), kResult,
       "what the products of linear layers round their operands to; on GPUs those of attention, too, and what "
       "a block's products write; weights, sums and all else are fp32"},
      {"compute.tf32", &c.compute.tf32, anything(), kResult,
       "with fp32 on a GPU: products of linear layers read 10 of their operands' 23 bits after the point, for speed"},
      {"compute.graphs", &c.compute.graphs, one_of({"auto", "off"}), kNone,
       "auto: on a GPU a microbatch's kernels are recorded once and then launched as one, where the host has no "
       "part in what comes between; off: never"},

      {"checkpoint.every", &c.checkpoint.every, from(0, kMany), kNone,
       "steps between checkpoints; 0: one at the end of every epoch"},
      {"checkpoint.keep", &c.checkpoint.keep, from(1, 1e6), kNone, "newest checkpoints that are kept"},
  };
}

}  // namespace switchyard
