// How the table of kernels is written: a kernel is one add(), which makes its arguments as the model does. The bytes
// that it moves are those of the arrays it takes: read(), write(), or update() for both.
#pragma once

#include <memory>

#include "app/kernel_cases.hpp"
#include "app/large_product.hpp"
#include "app/multiply_adds.hpp"
#include "app/operands.hpp"
#include "core/types.hpp"
#include "kernels/api/dropout.hpp"

namespace switchyard {

// (1040, 300) -> "1040 x 300"
inline std::string by(const std::vector<Index>& extents) {
  std::string text;
  for (Index extent : extents) text += (text.empty() ? "" : " x ") + std::to_string(extent);
  return text;
}

inline std::vector<std::int32_t> numbers(Index count, const std::function<Index(Index)>& number) {
  std::vector<std::int32_t> all;
  for (Index i = 0; i < count; ++i) all.push_back(static_cast<std::int32_t>(number(i)));
  return all;
}

class CaseList {
 public:
  using Run = std::function<void(const Context&)>;

  // As kernel_cases() has them.
  CaseList(const Context& context, const Config& config, const ModelOptions& model, Index num_parameters,
           const LargeProduct* large_product);

  const Context& context;
  const Config& config;
  const ModelOptions& model;
  const Index num_parameters;  // that one rank updates
  const LargeProduct* const large_product;
  const kernels::Precision precision;
  const Index samples, tokens;  // of a microbatch, in all its passes
  const Index segment_rows;     // of a feed-forward network: all tokens, or an expert's even share
  const Index width, out;       // of the rows that it takes and gives
  const Index hidden;           // its units, those of all leaves together, or its filters
  const Index fan_in;           // of each of them: width, or a patch's

  // `make` takes the kernel's arrays from the operands and returns what is to be timed. flop: 0 where memory is the
  // limit.
  void add_run(std::string name, std::string shape, double flop, std::function<Run(Operands&)> make) {
    const auto prepare = [flop, make = std::move(make), &context = context, product = large_product,
                          rounding = precision]() -> KernelCase::Prepared {
      const auto operands = std::make_shared<Operands>(context, rounding);
      const Run run = make(*operands);
      const auto run_kernel = [&context, operands, run] { run(context); };
      if (flop <= 0) return {run_kernel, [operands] { operands->pass(); }, operands->bytes(), operands->bytes()};
      if (product) return {run_kernel, [product] { product->run(); }, flop, product->flop()};
      return {run_kernel, run_multiply_adds, flop, multiply_adds_flop()};
    };
    all_.push_back({std::move(name), std::move(shape), flop > 0 ? Limit::kMultiplyAdds : Limit::kMemory, prepare});
  }

  // `make` returns the kernel's arguments.
  template <typename Arguments, typename Make>
  void add(void (*kernel)(const Context&, const Arguments&), std::string name, std::string shape, const Make& make,
           double flop = 0) {
    add_run(std::move(name), std::move(shape), flop, [kernel, make](Operands& operands) -> Run {
      return [kernel, arguments = Arguments(make(operands))](const Context& at) { kernel(at, arguments); };
    });
  }

  // As add(), once without dropout and once with the model's; make(operands, dropout).
  template <typename Arguments, typename Make>
  void add_with_dropout(void (*kernel)(const Context&, const Arguments&), const std::string& name,
                        const std::string& shape, const Make& make, double flop = 0) {
    const auto add_one = [&](double probability, const std::string& text) {
      kernels::Dropout dropout;
      dropout.probability = static_cast<float>(probability);
      dropout.key = {config.run.seed, Purpose::kFfnDropout, 0, 0};
      add(
          kernel, name, shape + text, [=](Operands& operands) { return make(operands, dropout); }, flop);
    };
    add_one(0, "");
    if (config.train.dropout > 0) add_one(config.train.dropout, fmt::format(", p = {:.3g}", config.train.dropout));
  }

  void push_back(KernelCase each) { all_.push_back(std::move(each)); }
  std::vector<KernelCase> take() { return std::move(all_); }

 private:
  std::vector<KernelCase> all_;
};

void add_layer_cases(CaseList& cases);
void add_routing_cases(CaseList& cases);
void add_gate_cases(CaseList& cases);
void add_visit_cases(CaseList& cases);  // of one leaf by each row, bound by multiply-adds
void add_tree_cases(CaseList& cases);
void add_patch_cases(CaseList& cases);

}  // namespace switchyard
