#include "kernel_test.hpp"
#include "kernels/api/gate.hpp"

namespace switchyard::kernels {
namespace {

double reference_factor(const PerturbInput& args, Index row, Index column) {
  double factor = 1;
  if (args.jitter != 0) {
    const auto words = random_words(args.jitter_key, args.first_row + static_cast<std::uint32_t>(row),
                                    static_cast<std::uint32_t>(column / 8));
    const std::uint32_t word = words[static_cast<std::size_t>(column % 8 / 2)];
    const double u = ((column % 2 == 0 ? word & 0xffff : word >> 16) + 0.5) / 65536;
    factor = 1 + args.jitter * (2 * u - 1);
  }
  return args.dropout.probability == 0 ? factor : factor * reference_scale(args.dropout, row, column);
}

TEST(PerturbInputTest, MatchesTheReference) {
  Ints row_ids(70);
  for (std::size_t i = 0; i < row_ids.size(); ++i) row_ids[i] = static_cast<std::int32_t>(5000 - 3 * i);
  for (const auto& [rows, cols] :
       {std::pair<Index, Index>{0, 5}, {1, 1}, {3, 17}, {65, 64}, {2, 513}, {17, 300}, {2, 1100}})
    for (const float jitter : {0.0f, 0.01f, 0.9f})
      for (const float probability : {0.0f, 0.3f})
        for (const bool with_ids : {false, true}) {
          SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", jitter " << jitter << ", probability "
                                          << probability << ", ids " << with_ids);
          const Floats x = random_floats(rows * cols, 1);
          PerturbInput args{
              .rows = rows,
              .cols = cols,
              .jitter = jitter,
              .jitter_key = {.seed = 0xfedcba9876543210, .purpose = Purpose::kGateJitter, .layer = 3, .step = 9},
              .first_row = 4294967290u,
              .dropout = some_dropout(probability)};
          if (with_ids) args.dropout.row_ids = row_ids.data();
          const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
            Output y(rows * cols), in_place(x);
            PerturbInput own = args;
            own.x = x.data();
            own.y = y.data();
            perturb_input(context, own);
            own.x = own.y = in_place.data();
            perturb_input(context, own);
            return {y.values(), in_place.values()};
          });
          EXPECT_TRUE(same_bits(outputs[0], outputs[1])) << "in place";
          Doubles y;
          for (Index row = 0; row < rows; ++row)
            for (Index c = 0; c < cols; ++c)
              y.push_back(x[static_cast<std::size_t>(row * cols + c)] * reference_factor(args, row, c));
          expect_near(outputs[0], y, 5e-7, "y");
        }
}

}  // namespace
}  // namespace switchyard::kernels
