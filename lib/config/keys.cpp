#include "config/keys.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <system_error>
#include <type_traits>

#include "core/error.hpp"

namespace switchyard {

namespace {

Allowed from(double lowest, double highest) { return {.lowest = lowest, .highest = highest}; }
Allowed at_least(double lowest) { return {.lowest = lowest}; }
Allowed above(double lowest) { return {.lowest = lowest, .lowest_open = true}; }
Allowed below_one() { return {.lowest = 0, .highest = 1, .highest_open = true}; }
Allowed one_of(std::vector<std::string> choices) { return {.choices = std::move(choices)}; }
Allowed anything() { return {}; }
Allowed anything_or_nothing() { return {.may_be_empty = true}; }

// From 0 on, or -1 for a value that the key's text tells.
Allowed weight_or_own(double highest = 1e6) { return {.lowest = 0, .highest = highest, .or_minus_one = true}; }

constexpr double kMany = 1e9;

}  // namespace

std::vector<Key> keys_of(Config& c) {
  constexpr Effect kResult = Effect::kResult, kNone = Effect::kNone;
  return {
      {"run.name", &c.run.name, anything(), kNone, "name of the run; its files lie in run.out/run.name"},
      {"run.out", &c.run.out, anything(), kNone, "folder that holds the runs"},
      {"run.seed", &c.run.seed, anything(), kResult, "seed of every random number of the run"},
      {"run.epochs", &c.run.epochs, from(1, 1e6), kResult, "passes over the training data"},
      {"run.steps", &c.run.steps, from(0, kMany), kResult, "above 0: train so many steps instead of run.epochs"},
      {"run.log_every", &c.run.log_every, from(1, kMany), kNone, "steps between rows of steps/* in the results"},
      {"run.eval_every", &c.run.eval_every, from(0, 1e6), kNone, "epochs between evaluations; 0: only at the end"},

      {"data.kind", &c.data.kind, one_of({"fashion-mnist", "mnist", "cifar10", "cifar100", "hdf5", "synthetic"}),
       kResult, "which data, and so the format of its files"},
      {"data.path", &c.data.path, anything_or_nothing(), kNone,
       "folder of the data, or its HDF5 file; empty: the place where a package puts it, or data/KIND"},
      {"data.limit", &c.data.limit, from(0, kMany), kResult, "above 0: only the first so many samples of each split"},
      {"data.crop_padding", &c.data.crop_padding, from(0, 1024), kResult,
       "train on random crops of images padded by so many pixels; 0: no crops"},
      {"data.flip", &c.data.flip, anything(), kResult, "train on images flipped left to right at random"},
      {"data.normalize", &c.data.normalize, anything(), kResult,
       "pixels become (v - data.mean) / data.deviation, with v in 0..1"},
      {"data.mean", &c.data.mean, from(-1e6, 1e6), kResult, "see data.normalize"},
      {"data.deviation",
       &c.data.deviation,
       {.lowest = 0, .highest = 1e6, .lowest_open = true},
       kResult,
       "see data.normalize"},
      {"data.synthetic_samples", &c.data.synthetic_samples, from(1, 1e7), kResult,
       "training samples of synthetic data; the test split has a quarter as many"},
      {"data.synthetic_size", &c.data.synthetic_size, from(1, 4096), kResult,
       "height and width of synthetic images, pixels"},
      {"data.synthetic_channels", &c.data.synthetic_channels, from(1, 4), kResult, "channels of synthetic images"},
      {"data.synthetic_classes", &c.data.synthetic_classes, from(2, 65536), kResult, "classes of synthetic data"},
      {"data.synthetic_seed", &c.data.synthetic_seed, anything(), kResult,
       "seed of synthetic data, apart from run.seed so that repeated runs see the same data"},

      {"model.kind", &c.model.kind, one_of({"vit"}), kResult, "vit: a pre-norm vision transformer with a CLS token"},
      {"model.layers", &c.model.layers, from(1, 1024), kResult, "transformer blocks"},
      {"model.width", &c.model.width, from(1, 65536), kResult, "features per token"},
      {"model.heads", &c.model.heads, from(1, 1024), kResult, "attention heads; they divide model.width"},
      {"model.patch", &c.model.patch, from(1, 4096), kResult,
       "side of a square patch, pixels; it divides the image's height and width"},
      {"model.head_hidden", &c.model.head_hidden, from(0, 1048576), kResult,
       "hidden width of the classification head; 0: one linear layer"},
      {"model.positions", &c.model.positions, from(0, 1048576), kResult,
       "rows of the table of learned positions; 0: as many as there are patches"},

      {"ffn.kind", &c.ffn.kind, one_of({"dense", "moe"}), kResult, "dense: one feed-forward network; moe: experts"},
      {"ffn.hidden", &c.ffn.hidden, from(1, 1048576), kResult, "hidden width of the network, or of each expert"},
      {"ffn.experts", &c.ffn.experts, from(1, 65536), kResult, "experts per block (moe)"},
      {"ffn.every", &c.ffn.every, from(1, 1024), kResult,
       "every so many blocks have a mixture, beginning with block ffn.every - 1; the others are dense (moe)"},
      {"ffn.shared", &c.ffn.shared, from(0, 1024), kResult,
       "experts that every token visits with weight 1, beside the routed ones (moe)"},
      {"ffn.router", &c.ffn.router, anything(), kResult, "which expert a token goes to (moe): see Routers below"},
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
      {"ffn.gate_dropout", &c.ffn.gate_dropout, from(0, 0.99), kResult, "dropout of the gate's input in training"},
      {"ffn.balance_loss", &c.ffn.balance_loss, weight_or_own(), kResult,
       "weight of the load-balancing loss; -1: the router's own, 0.01 for switch and top_k, 0 for others"},
      {"ffn.z_loss", &c.ffn.z_loss, from(0, 1e6), kResult, "weight of the z-loss of the gate's logits (ST-MoE: 0.001)"},
      {"ffn.importance_loss", &c.ffn.importance_loss, weight_or_own(), kResult,
       "weight of the importance loss; -1: the router's own, 0.1 for noisy_top_k, 0 for others"},
      {"ffn.load_loss", &c.ffn.load_loss, weight_or_own(), kResult,
       "weight of the smooth load loss of noisy_top_k; -1: the router's own, 0.1 there"},
      {"ffn.bias_rate", &c.ffn.bias_rate, from(0, 1e6), kResult,
       "loss_free: how far a step moves the bias of an expert that has too many tokens or too few"},
      {"ffn.capacity_train", &c.ffn.capacity_train, from(0, 1e6), kResult,
       "an expert takes at most so many times an even share of a microbatch's tokens, the others are dropped: the "
       "residual carries them; 0: no limit (expert_choice: experts per token on average; 0: 2)"},
      {"ffn.capacity_eval", &c.ffn.capacity_eval, from(0, 1e6), kResult, "the same in evaluation"},
      {"ffn.expert_dropout", &c.ffn.expert_dropout, weight_or_own(0.99), kResult,
       "dropout of hidden units inside experts; -1: train.dropout"},
      {"ffn.gating_dropout", &c.ffn.gating_dropout, from(0, 1), kResult,
       "probability of a step whose tokens stay with the experts of their home (Gating Dropout)"},
      {"ffn.home_ranks", &c.ffn.home_ranks, from(1, 65536), kResult,
       "gating dropout: ranks of the layout in which a microbatch has its home; they divide a batch's microbatches"},
      {"ffn.home_experts", &c.ffn.home_experts, from(1, 65536), kResult,
       "gating dropout: expert-parallel size of that layout; it divides ffn.experts and ffn.home_ranks"},
      {"ffn.consistency", &c.ffn.consistency, from(0, 1e6), kResult,
       "above 0: every sample passes twice, with other random draws, and this weighs the symmetric Kullback-Leibler "
       "divergence of the two answers"},
      {"ffn.consistency_kind", &c.ffn.consistency_kind, one_of({"thor", "adamix"}), kResult,
       "thor: both passes learn the labels; adamix: the first alone, and the divergence moves only one side at a time"},

      {"train.batch", &c.train.batch, from(1, 1048576), kResult, "samples per step, over all ranks"},
      {"train.microbatch", &c.train.microbatch, from(1, 65536), kResult,
       "samples computed together, the unit that ranks share out; it divides train.batch"},
      {"train.optimizer", &c.train.optimizer, one_of({"adam", "adamw", "sgd"}), kResult,
       "adam: weight decay in the gradient; adamw: apart from it; sgd: with momentum"},
      {"train.lr", &c.train.lr, from(0, 1e6), kResult, "learning rate at its highest"},
      {"train.weight_decay", &c.train.weight_decay, from(0, 1e6), kResult, "weight decay"},
      {"train.momentum", &c.train.momentum, below_one(), kResult, "momentum (sgd)"},
      {"train.beta1", &c.train.beta1, below_one(), kResult, "decay of the mean gradient (adam, adamw)"},
      {"train.beta2", &c.train.beta2, below_one(), kResult, "decay of the mean squared gradient (adam, adamw)"},
      {"train.epsilon", &c.train.epsilon, above(0), kResult, "added to the denominator (adam, adamw)"},
      {"train.schedule", &c.train.schedule, one_of({"constant", "cosine"}), kResult,
       "learning rate after the warm-up: as it is, or along half a cosine to 0"},
      {"train.schedule_epochs", &c.train.schedule_epochs, from(0, 1e6), kResult,
       "length of the cosine in epochs; 0: the run's own length"},
      {"train.warmup_steps", &c.train.warmup_steps, from(0, kMany), kResult,
       "steps over which the learning rate rises linearly from 0"},
      {"train.clip", &c.train.clip, at_least(0), kResult, "largest global norm of the gradient; 0: no clipping"},
      {"train.dropout", &c.train.dropout, from(0, 0.99), kResult,
       "probability of dropping an attention weight, a hidden unit or a residual unit"},

      {"parallel.experts", &c.parallel.experts, from(1, 65536), kNone,
       "expert-parallel size: ranks that share out the experts; it divides ffn.experts and the number of ranks"},
      {"parallel.threads", &c.parallel.threads, from(1, 1024), kNone, "threads per rank"},
      {"parallel.reduction", &c.parallel.reduction, one_of({"tree", "library"}), kResult,
       "tree: sums do not depend on the number of ranks; library: MPI's own all-reduce, where they may"},
      {"parallel.timeout", &c.parallel.timeout, from(1, 1e6), kNone,
       "seconds that a collective waits for a rank before the run is given up"},

      {"compute.device", &c.compute.device, one_of({"cpu", "cuda"}), kResult, "where kernels run"},
      {"compute.dtype", &c.compute.dtype, one_of({"fp32", "bf16"}), kResult,
       "what the products of linear layers round their operands to; weights, sums and all else are fp32"},

      {"checkpoint.every", &c.checkpoint.every, from(0, kMany), kNone,
       "steps between checkpoints; 0: one at the end of every epoch"},
      {"checkpoint.keep", &c.checkpoint.keep, from(1, 1e6), kNone, "newest checkpoints that are kept"},
  };
}

namespace {

template <typename T>
bool parse_number(std::string_view text, T& number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stop == end && !text.empty();
}

template <typename T>
bool set_number(const Allowed& allowed, std::string_view text, T& target) {
  T number{};
  if (!parse_number(text, number)) return false;
  const double value = static_cast<double>(number);
  if (!std::isfinite(value)) return false;
  if (allowed.or_minus_one && value == -1) {
    target = number;
    return true;
  }
  if (value < allowed.lowest || (allowed.lowest_open && value == allowed.lowest)) return false;
  if (value > allowed.highest || (allowed.highest_open && value == allowed.highest)) return false;
  target = number;
  return true;
}

bool set_flag(std::string_view text, bool& target) {
  if (text != "true" && text != "false") return false;
  target = text == "true";
  return true;
}

// Text has to survive being printed into a file and read back: no comment sign, quotes or line breaks.
bool set_text(const Allowed& allowed, std::string_view text, std::string& target) {
  if (!allowed.choices.empty()) {
    if (std::find(allowed.choices.begin(), allowed.choices.end(), text) == allowed.choices.end()) return false;
  } else {
    if (text.empty() && !allowed.may_be_empty) return false;
    const auto unfit = [](unsigned char ch) { return ch < ' ' || ch == 127 || ch == '#' || ch == '"'; };
    if (std::any_of(text.begin(), text.end(), unfit)) return false;
    if (!text.empty() && (text.front() == ' ' || text.back() == ' ')) return false;
  }
  target = text;
  return true;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// Bytes of the UTF-8 character that the text begins with; 0 where these are none, or a control character.
std::size_t printable_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(i < text.size() ? text[i] : 0); };
  const unsigned first = byte(0);
  if (first < 0x80) return first >= ' ' && first != 127 ? 1 : 0;
  if (first < 0xC2 || first > 0xF4 || (first == 0xC2 && byte(1) < 0xA0)) return 0;
  const std::size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) >= 0xA0)) return 0;  // overlong, or a surrogate
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  return length;
}

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('.') + 1); }

}  // namespace

void set_value(const Key& key, std::string_view text, std::string_view where) {
  const bool fits = std::visit(
      [&](auto* target) {
        using T = std::remove_pointer_t<decltype(target)>;
        if constexpr (std::is_same_v<T, bool>)
          return set_flag(text, *target);
        else if constexpr (std::is_same_v<T, std::string>)
          return set_text(key.allowed, text, *target);
        else
          return set_number(key.allowed, text, *target);
      },
      key.value);
  if (!fits)
    fail_usage("{}: {} = {} is not allowed; allowed: {}.", where, key.name, in_quotes(text), allowed_text(key));
}

std::string value_text(const Key& key) {
  // fmt prints the shortest decimal that reads back as the same double.
  return std::visit([](const auto* value) { return fmt::format("{}", *value); }, key.value);
}

std::string allowed_text(const Key& key) {
  const Allowed& allowed = key.allowed;
  if (std::holds_alternative<bool*>(key.value)) return "true | false";
  if (std::holds_alternative<std::string*>(key.value)) {
    if (!allowed.choices.empty()) return joined(allowed.choices, " | ");
    return allowed.may_be_empty ? "text without # or quotes, or nothing" : "text without # or quotes";
  }
  if (std::holds_alternative<std::uint64_t*>(key.value)) return "a whole number from 0 to 18446744073709551615";
  std::string text = std::holds_alternative<Index*>(key.value) ? "a whole number" : "a number";
  const auto print = [](double value) {
    return std::abs(value) < 1e15 && value == std::floor(value) ? fmt::format("{}", static_cast<Index>(value))
                                                                : fmt::format("{}", value);
  };
  if (std::isfinite(allowed.lowest))
    text += fmt::format(" {} {}", allowed.lowest_open ? "above" : "from", print(allowed.lowest));
  if (std::isfinite(allowed.highest))
    text += fmt::format("{} {}", allowed.highest_open ? " to below" : " to", print(allowed.highest));
  else if (!allowed.lowest_open)
    text += " up";
  if (allowed.or_minus_one) text += ", or -1";
  return text;
}

std::string joined(const std::vector<std::string>& words, std::string_view separator) {
  std::string text;
  for (const std::string& word : words) (text += text.empty() ? "" : separator) += word;
  return text;
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  std::string shown;
  for (std::string_view rest = text.substr(0, kLongest); !rest.empty();) {
    const std::size_t length = printable_length(rest);
    shown += length > 0 ? rest.substr(0, length) : "?";
    rest.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return fmt::format("\"{}{}\"", shown, text.size() > kLongest ? "..." : "");
}

std::string suggestion(std::string_view wrong, const std::vector<std::string>& names) {
  wrong = wrong.substr(0, 64);
  const std::string* best = nullptr;
  std::size_t best_distance = 0;
  for (const std::string& name : names) {
    // The right key in the wrong section is nearer than any misspelling but one of a letter or two.
    std::size_t distance = edit_distance(wrong, name);
    if (last_part(wrong) == last_part(name)) distance = std::min<std::size_t>(distance, 2);
    if (name.starts_with(wrong)) distance = 1;
    if (best == nullptr || distance < best_distance) best = &name, best_distance = distance;
  }
  if (best == nullptr || best_distance > std::max<std::size_t>(2, wrong.size() / 3)) return ".";
  return fmt::format(", did you mean {}?", *best);
}

}  // namespace switchyard
