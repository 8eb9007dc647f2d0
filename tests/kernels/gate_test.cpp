#include "kernels/api/gate.hpp"

#include <algorithm>
#include <numeric>

#include "core/error.hpp"
#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

constexpr double kTiny = 1e-20;

struct Options {
  Index top_k;
  Scores kind;
  bool renormalise, selection_bias, home;
};
std::ostream& operator<<(std::ostream& out, const Options& o) {
  return out << "top " << o.top_k << (o.kind == Scores::kSoftmax ? " softmax" : " sigmoid")
             << (o.renormalise ? ", renormalised" : "") << (o.selection_bias ? ", selection bias" : "")
             << (o.home ? ", home range" : "");
}

std::vector<Options> options_for(Index num_experts) {
  std::vector<Options> all;
  Ints top_ks{1, 2, 3, static_cast<std::int32_t>(num_experts)};
  for (const Index top_k : top_ks)
    for (const Scores kind : {Scores::kSoftmax, Scores::kSigmoid})
      for (const bool renormalise : {false, true})
        for (const bool selection_bias : {false, true})
          for (const bool home : {false, true})
            if (top_k <= num_experts && (!home || top_k + 1 < num_experts))
              all.push_back({top_k, kind, renormalise, selection_bias, home});
  return all;
}

// What gate() computes of one token, in double, for given choices.
struct Reference {
  Doubles scores, probabilities, weights;
  double log_sum_exp = 0;
};
Reference reference(const Doubles& z, const Options& o, const Ints& choices) {
  Reference r;
  double sum_of_exp = 0, sum = 0, sum_of_chosen = 0;
  for (const double value : z) sum_of_exp += std::exp(value);
  r.log_sum_exp = std::log(sum_of_exp);
  const bool softmax = o.kind == Scores::kSoftmax;
  for (const double value : z) {
    r.scores.push_back(softmax ? std::exp(value) / sum_of_exp : 1 / (1 + std::exp(-value)));
    sum += r.scores.back();
  }
  for (const double score : r.scores) r.probabilities.push_back(softmax ? score : score / (sum + kTiny));
  for (const std::int32_t e : choices)
    if (e >= 0) sum_of_chosen += r.scores[static_cast<std::size_t>(e)];
  for (const std::int32_t e : choices)
    r.weights.push_back(e < 0 ? double{kPoison}
                              : r.scores[static_cast<std::size_t>(e)] /
                                    (o.renormalise ? sum_of_chosen + (softmax ? 0 : kTiny) : 1.0));
  return r;
}

struct Shape {
  Index tokens, num_experts;
};
class GateCases : public testing::TestWithParam<Shape> {
 protected:
  const Index tokens = GetParam().tokens, num_experts = GetParam().num_experts;
  const Floats logits = random_floats(tokens * num_experts, 1, 3), bias = random_floats(num_experts, 2);
  const Floats selection_bias = random_floats(num_experts, 3, 0.2f);

  Doubles row(const Floats& values, Index token) const {
    return {values.begin() + token * num_experts, values.begin() + (token + 1) * num_experts};
  }
  Doubles z_of(Index token) const {
    Doubles z = row(logits, token);
    for (std::size_t e = 0; e < z.size(); ++e) z[e] += double{bias[e]};
    return z;
  }
  Gate gate_args(const Options& o) const {
    return {.tokens = tokens,
            .num_experts = num_experts,
            .top_k = o.top_k,
            .first_expert = o.home ? 1 : 0,
            .end_expert = o.home ? o.top_k + 2 : num_experts,
            .kind = o.kind,
            .renormalise = o.renormalise,
            .logits = logits.data(),
            .bias = bias.data(),
            .selection_bias = o.selection_bias ? selection_bias.data() : nullptr};
  }
};

TEST_P(GateCases, ForwardMatchesTheReference) {
  for (const Options& o : options_for(num_experts)) {
    SCOPED_TRACE(testing::Message() << o);
    const bool softmax = o.kind == Scores::kSoftmax;
    const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      Output scores(tokens * num_experts), probabilities(tokens * num_experts), weights(tokens * o.top_k), lse(tokens);
      Output in_place(logits);
      IntOutput experts(tokens * o.top_k);
      Gate args = gate_args(o);
      args.scores = scores.data();
      args.probabilities = softmax ? nullptr : probabilities.data();
      args.experts = experts.data();
      args.weights = weights.data();
      args.log_sum_exp = softmax ? lse.data() : nullptr;
      gate(context, args);
      args.logits = args.scores = in_place.data();
      args.log_sum_exp = nullptr;
      gate(context, args);
      return {scores.values(),  in_place.values(), probabilities.values(),
              weights.values(), lse.values(),      experts.floats()};
    });
    EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "in place";
    for (Index t = 0; t < tokens; ++t) {
      const auto at = [&](Index e) { return static_cast<std::size_t>(t * num_experts + e); };
      const auto key = [&](std::int32_t e) {
        const auto expert = static_cast<std::size_t>(e);
        return o.selection_bias ? outputs[0][at(e)] + selection_bias[expert] : logits[at(e)] + bias[expert];
      };
      const Gate args = gate_args(o);
      Ints choices(static_cast<std::size_t>(args.end_expert - args.first_expert));
      std::iota(choices.begin(), choices.end(), static_cast<std::int32_t>(args.first_expert));
      std::stable_sort(choices.begin(), choices.end(), [&](auto a, auto b) { return key(a) > key(b); });
      choices.resize(static_cast<std::size_t>(o.top_k));
      const auto first = t * o.top_k;
      ASSERT_TRUE(std::equal(choices.begin(), choices.end(), outputs[5].begin() + first)) << "token " << t;
      const Reference r = reference(z_of(t), o, choices);
      const Floats weights(outputs[3].begin() + first, outputs[3].begin() + first + o.top_k);
      const auto row_of = [&](const Floats& values) {
        return Floats(values.begin() + t * num_experts, values.begin() + (t + 1) * num_experts);
      };
      expect_near(row_of(outputs[0]), r.scores, 1e-6, "scores");
      expect_near(weights, r.weights, 1e-6, "weights");
      if (!softmax) expect_near(row_of(outputs[2]), r.probabilities, 1e-6, "probabilities");
      if (softmax) expect_near({outputs[4][static_cast<std::size_t>(t)]}, {r.log_sum_exp}, 1e-6, "log_sum_exp");
    }
  }
}

// Choices need not be those that gate() makes: here expert (7 t + 3 j) mod E, some of them not made.
TEST_P(GateCases, BackwardMatchesFiniteDifferences) {
  const Floats q = random_floats(num_experts, 5), weight_gradient_of_expert = random_floats(num_experts, 6);
  for (const Options& o : options_for(num_experts))
    for (const int with : {0, 1, 2, 3, 7}) {     // bits: d_weight_of_expert, d_probability_of_expert, z_scale
      if (o.home || o.selection_bias) continue;  // of these backward knows nothing
      SCOPED_TRACE(testing::Message() << o << ", terms " << with);
      const bool softmax = o.kind == Scores::kSoftmax;
      const float z_scale = softmax && (with & 4) ? 0.3f : 0;
      Ints experts;
      Floats scores, probabilities, weights, lse;
      std::vector<Ints> choices_of;
      for (Index t = 0; t < tokens; ++t) {
        Ints choices;
        for (Index j = 0; j < o.top_k; ++j)
          choices.push_back((t + j) % 4 == 1 ? -1 : static_cast<std::int32_t>((7 * t + j) % num_experts));
        const Reference r = reference(z_of(t), o, choices);
        experts.insert(experts.end(), choices.begin(), choices.end());
        scores.insert(scores.end(), r.scores.begin(), r.scores.end());
        probabilities.insert(probabilities.end(), r.probabilities.begin(), r.probabilities.end());
        weights.insert(weights.end(), r.weights.begin(), r.weights.end());
        lse.push_back(static_cast<float>(r.log_sum_exp));
        choices_of.push_back(choices);
      }
      const Floats d_weights = random_floats(tokens * o.top_k, 4);
      const Floats d_logits = on_all_threads([&](const Context& context) -> std::vector<Floats> {
        Output out(tokens * num_experts);
        gate_backward(context, {.tokens = tokens,
                                .num_experts = num_experts,
                                .top_k = o.top_k,
                                .kind = o.kind,
                                .renormalise = o.renormalise,
                                .scores = scores.data(),
                                .probabilities = softmax ? nullptr : probabilities.data(),
                                .experts = experts.data(),
                                .weights = weights.data(),
                                .d_weights = d_weights.data(),
                                .d_weight_of_expert = with & 1 ? weight_gradient_of_expert.data() : nullptr,
                                .d_probability_of_expert = with & 2 ? q.data() : nullptr,
                                .log_sum_exp = z_scale != 0 ? lse.data() : nullptr,
                                .z_scale = z_scale,
                                .d_logits = out.data()});
        return {out.values()};
      })[0];
      for (Index t = 0; t<tokens; t += tokens> 20 ? 9 : 1) {
        const Ints& choices = choices_of[static_cast<std::size_t>(t)];
        Floats d_outputs;
        for (std::size_t j = 0; j < choices.size(); ++j)
          if (choices[j] >= 0)
            d_outputs.push_back(d_weights[static_cast<std::size_t>(t * o.top_k) + j] +
                                (with & 1 ? weight_gradient_of_expert[static_cast<std::size_t>(choices[j])] : 0));
        if (with & 2) d_outputs.insert(d_outputs.end(), q.begin(), q.end());
        d_outputs.push_back(z_scale);
        const auto outputs_of = [&](const Doubles& z) {
          const Reference r = reference(z, o, choices);
          Doubles values;
          for (std::size_t j = 0; j < choices.size(); ++j)
            if (choices[j] >= 0) values.push_back(r.weights[j]);
          if (with & 2) values.insert(values.end(), r.probabilities.begin(), r.probabilities.end());
          values.push_back(r.log_sum_exp * r.log_sum_exp / 2);
          return values;
        };
        const Floats actual(d_logits.begin() + t * num_experts, d_logits.begin() + (t + 1) * num_experts);
        expect_gradient(outputs_of, z_of(t), d_outputs, actual, 2e-6, "d_logits", num_experts > 20 ? 5 : 1);
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GateCases,
                         testing::Values(Shape{0, 3}, Shape{1, 1}, Shape{2, 3}, Shape{17, 4}, Shape{65, 17},
                                         Shape{260, 8}, Shape{19, 65}));

struct Gated {
  Ints experts;
  Floats weights, scores, log_sum_exp;
};
Gated gate_of(const Floats& logits, Index num_experts, Index top_k, Scores kind, bool renormalise,
              Index first_expert = 0, Index end_expert = 0, const float* selection_bias = nullptr) {
  ThreadPool threads(1);
  const auto size = static_cast<Index>(logits.size()), tokens = size / num_experts;
  IntOutput experts(tokens * top_k);
  Output scores(size), probabilities(size), weights(tokens * top_k), lse(tokens);
  gate(test_context(threads), {.tokens = tokens,
                               .num_experts = num_experts,
                               .top_k = top_k,
                               .first_expert = first_expert,
                               .end_expert = end_expert == 0 ? num_experts : end_expert,
                               .kind = kind,
                               .renormalise = renormalise,
                               .logits = logits.data(),
                               .selection_bias = selection_bias,
                               .scores = scores.data(),
                               .probabilities = probabilities.data(),
                               .experts = experts.data(),
                               .weights = weights.data(),
                               .log_sum_exp = lse.data()});
  return {experts.values(), weights.values(), scores.values(), lse.values()};
}

TEST(GateTest, TakesTheLowerIndexWhereEqual) {
  for (const Scores kind : {Scores::kSoftmax, Scores::kSigmoid}) {
    EXPECT_EQ(gate_of({1, 2, 2, 1, 2}, 5, 1, kind, false).experts, (Ints{1}));
    EXPECT_EQ(gate_of({1, 2, 2, 1, 2}, 5, 2, kind, false).experts, (Ints{1, 2}));
    EXPECT_EQ(gate_of({1, 2, 2, 1, 2}, 5, 5, kind, false).experts, (Ints{1, 2, 4, 0, 3}));
    EXPECT_EQ(gate_of({1, 2, 2, 1, 2}, 5, 2, kind, false, 2, 5).experts, (Ints{2, 4}));
  }
  // Logits choose, not the scores that they round to.
  EXPECT_EQ(gate_of({40, 41, 42}, 3, 2, Scores::kSigmoid, false).experts, (Ints{2, 1}));
}

TEST(GateTest, ASelectionBiasChoosesAndDoesNotWeigh) {
  const Floats selection_bias{0, 10, 0};
  const Gated gated = gate_of({3, 0, 1}, 3, 1, Scores::kSigmoid, false, 0, 3, selection_bias.data());
  EXPECT_EQ(gated.experts, Ints{1});
  EXPECT_EQ(gated.weights, Floats{0.5f});
}

TEST(GateTest, ARowWithNanOrInfinityHasExpertsThatExistAndNanForItsWeights) {
  for (const Scores kind : {Scores::kSoftmax, Scores::kSigmoid})
    for (const bool renormalise : {false, true})
      for (const Index top_k : {1, 2, 3, 19})
        for (std::size_t place = 0; place < 20; ++place) {
          Floats logits = random_floats(2 * 20, 7);
          logits[place] = kPoison;
          const Gated gated = gate_of(logits, 20, top_k, kind, renormalise, 1);
          for (std::size_t a = 0; a < gated.experts.size(); ++a) {
            ASSERT_TRUE(gated.experts[a] >= 1 && gated.experts[a] < 20);
            ASSERT_EQ(std::isnan(gated.weights[a]), a < static_cast<std::size_t>(top_k)) << "assignment " << a;
          }
          Ints distinct(gated.experts.begin(), gated.experts.begin() + top_k);
          std::sort(distinct.begin(), distinct.end());
          ASSERT_EQ(std::unique(distinct.begin(), distinct.end()), distinct.end());
          ASSERT_TRUE(kind == Scores::kSigmoid || std::isnan(gated.log_sum_exp[0]));
        }
  const float infinity = std::numeric_limits<float>::infinity();
  const Gated minus = gate_of({-infinity, 0, -infinity, 1}, 4, 2, Scores::kSoftmax, true);
  EXPECT_EQ(minus.experts, (Ints{3, 1}));
  EXPECT_EQ(minus.scores[0], 0);
  EXPECT_TRUE(std::isnan(gate_of({infinity, 0}, 2, 1, Scores::kSoftmax, true).weights[0]));
}

TEST(GateTest, OneRenormalisedChoiceUnderSoftmaxWeighsExactlyOne) {
  for (const float scale : {1.0f, 30.0f, 1000.0f})
    for (const Index num_experts : {1, 4, 9, 65}) {
      const Floats logits = random_floats(200 * num_experts, 9, scale);
      for (const float weight : gate_of(logits, num_experts, 1, Scores::kSoftmax, true).weights)
        ASSERT_EQ(weight, 1.0f);
      // at home too, where the chosen expert's own score may be 0
      for (const float weight : gate_of(logits, num_experts, 1, Scores::kSoftmax, true, num_experts - 1).weights)
        ASSERT_EQ(weight, 1.0f);
    }
}

TEST(GateTest, SigmoidsThatAreAllZeroGiveNoNan) {
  const Gated gated = gate_of({-200, -300, -100}, 3, 2, Scores::kSigmoid, true);
  EXPECT_EQ(gated.experts, (Ints{2, 0}));
  EXPECT_EQ(gated.weights, (Floats{0, 0}));
}

TEST(GateTest, RefusesARangeWithTooFewExperts) {
  EXPECT_THROW(gate_of({1, 2, 3}, 3, 2, Scores::kSoftmax, false, 2), Error);
  EXPECT_THROW(gate_of({1, 2, 3}, 3, 1, Scores::kSoftmax, false, 0, 4), Error);
  EXPECT_THROW(gate_of({1, 2, 3}, 3, 4, Scores::kSoftmax, false), Error);
}

}  // namespace
}  // namespace switchyard::kernels
