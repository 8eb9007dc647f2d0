// Launches that are recorded and launched again: done when they are launched, with what lies at their addresses then.
#include <span>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "kernel_test.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/graph.hpp"

namespace switchyard::kernels {
namespace {

// A context with a stream of its own: what the default stream is given cannot be recorded.
class GraphTest : public ::testing::Test {
 protected:
  GraphTest() : context_{.device = test_device(), .threads = &threads_, .stream = make_stream(test_device())} {}
  ~GraphTest() override { destroy_stream(test_device(), context_.stream); }

  Floats on_host(const Array<float>& array) {
    Floats values(static_cast<std::size_t>(array.size()));
    copy_to_host(context_, values.data(), array.data(), array.size() * Index{sizeof(float)});
    return values;
  }
  Array<float> on_device(const Floats& values) {
    Array<float> array(test_device(), std::ssize(values));
    array.upload(context_, values);
    return array;
  }
  // y = x + bias
  void add(const float* x, const float* bias, float* y) {
    bias_add(context_, {.rows = kRows, .cols = kCols, .x = x, .bias = bias, .y = y});
  }

  static constexpr Index kRows = 6, kCols = 20, kSize = kRows * kCols;
  ThreadPool threads_{1};
  Context context_;
};

// A kernel, products side by side on streams of their own, and a kernel that waits for them.
TEST_F(GraphTest, DoesOnEveryLaunchWhatWasRecorded) {
  constexpr Index kProducts = 9;
  const Array<float> bias = on_device(random_floats(kCols, 1)), w = on_device(random_floats(kCols * kCols, 2));
  Array<float> x = on_device(random_floats(kSize, 3)), moved(test_device(), kSize), y(test_device(), kProducts * kSize);
  const auto work = [&] {
    add(x.data(), bias.data(), moved.data());
    std::vector<Gemm> list;
    for (Index i = 0; i < kProducts; ++i)
      list.push_back(LinearProducts{kRows, kCols, kCols}.forward(moved.data(), w.data(), y.data() + i * kSize));
    gemm(context_, list);
    add(y.data() + (kProducts - 1) * kSize, bias.data(), y.data());
  };
  work();
  const Floats first = on_host(y);
  const Floats other_x = random_floats(kSize, 4);
  x.upload(context_, other_x);
  work();
  const Floats second = on_host(y);
  ASSERT_FALSE(same_bits(first, second));

  y.clear(context_);
  const std::unique_ptr<Graph> graph = record(context_, work);
  EXPECT_EQ(on_host(y), Floats(static_cast<std::size_t>(y.size()), 0.0f)) << "done while it was recorded";
  graph->launch(context_);
  EXPECT_TRUE(same_bits(on_host(y), second));
  x.upload(context_, random_floats(kSize, 3));
  graph->launch(context_);
  EXPECT_TRUE(same_bits(on_host(y), first));
}

TEST_F(GraphTest, KeepsWhatItCopiesFromTheHost) {
  Array<float> x(test_device(), kSize), bias(test_device(), kCols), y(test_device(), kSize);
  Floats values = random_floats(kSize, 1);
  const Floats zeros(kCols, 0.0f), first = values;
  const std::unique_ptr<Graph> graph = record(context_, [&] {
    x.upload(context_, values);
    bias.upload(context_, zeros);
    add(x.data(), bias.data(), y.data());
  });
  values.assign(values.size(), 7.0f);  // as after any copy_to_device()
  x.upload(context_, values);
  graph->launch(context_);
  EXPECT_EQ(on_host(y), first);

  const Floats other = random_floats(kSize, 2);
  graph->replace_copy(x.data(), other.data(), kSize * Index{sizeof(float)});
  graph->launch(context_);
  EXPECT_EQ(on_host(y), other);
  graph->launch(context_);
  EXPECT_EQ(on_host(y), other);
  EXPECT_THROW(graph->replace_copy(x.data(), other.data(), 4), Error);
  EXPECT_THROW(graph->replace_copy(y.data(), other.data(), kSize * Index{sizeof(float)}), Error);
}

// Intermediate results lie in memory of which others may need more: here products side by side, each with its own.
TEST_F(GraphTest, OutlivesAWorkspaceThatGrows) {
  constexpr Index kSide = 8, kDepth = 3000, kProducts = 6;
  const Array<float> x = on_device(random_floats(kSide * kDepth, 1));
  Array<float> squares(test_device(), kProducts * kSide * kSide);
  std::vector<Gemm> products;
  for (Index i = 0; i < kProducts; ++i)
    products.push_back(
        LinearProducts{kSide, kDepth, kSide}.forward(x.data(), x.data(), squares.data() + i * kSide * kSide));
  const auto multiply = [&](std::size_t count) { gemm(context_, std::span(products).first(count)); };
  multiply(1);
  const std::unique_ptr<Graph> graph = record(context_, [&] { multiply(1); });
  multiply(kProducts);
  const Floats expected = on_host(squares);
  fill_zero(context_, squares.data(), kSide * kSide * Index{sizeof(float)});
  graph->launch(context_);
  EXPECT_TRUE(same_bits(on_host(squares), expected));
}

TEST_F(GraphTest, RefusesWhatCannotBeRecorded) {
  Array<float> x = on_device(random_floats(kSize, 1)), y(test_device(), kSize);
  void* const stream = make_stream(test_device());
  Context beside = context_;
  beside.stream = stream;
  const auto refused = [&](const std::string& why, const std::function<void()>& work) {
    SCOPED_TRACE(why);
    try {
      record(context_, work);
      ADD_FAILURE() << "recorded";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
    // And what comes next is done as ever.
    copy(context_, y.data(), x.data(), kSize * Index{sizeof(float)});
    EXPECT_EQ(on_host(y), on_host(x));
  };
  refused("allocation", [&] { const Array<float> array(test_device(), 1); });
  refused("waiting", [&] { synchronize(context_); });
  refused("waiting", [&] { on_host(x); });
  refused("within another", [&] { record(context_, [] {}); });
  refused("unjoined", [&] {
    wait_for(beside, context_);
    copy(beside, y.data(), x.data(), kSize * Index{sizeof(float)});
  });
  refused("uncaptured", [&] {
    copy(beside, y.data(), x.data(), kSize * Index{sizeof(float)});
    wait_for(context_, beside);
  });
  destroy_stream(test_device(), stream);
}

}  // namespace
}  // namespace switchyard::kernels
