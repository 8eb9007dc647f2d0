#include "app/operands.hpp"

#include <cstdint>
#include <cstring>

#include "app/onednn_product.hpp"

namespace switchyard {

namespace {

using Word = std::uint64_t;

// Known to be zero by nobody but us: so the compiler keeps the loops below.
volatile Word zero = 0;
volatile Word seen = 0;

void read_words(const Word* words, Index count) {
  Word all = 0;
#pragma omp simd reduction(^ : all)
  for (Index i = 0; i < count; ++i) all ^= words[i];
  seen = all;
}

void update_words(Word* words, Index count) {
  const Word value = zero;
  for (Index i = 0; i < count; ++i) words[i] ^= value;
}

}  // namespace

void* Operands::add(Index bytes, bool is_read, bool is_written) {
  arrays_.push_back({kernels::Array<std::byte>(context_.device, bytes), is_read, is_written});
  void* data = arrays_.back().data.data();
  // Written too, so that its pages are there before the clock runs.
  fill_operand(data, static_cast<std::size_t>(bytes));
  return data;
}

double Operands::bytes() const {
  double sum = 0;
  for (const Array& array : arrays_) sum += static_cast<double>(array.data.size()) * (array.is_read + array.is_written);
  return sum;
}

void Operands::pass() {
  for (Array& array : arrays_) {
    auto* words = reinterpret_cast<Word*>(array.data.data());
    const Index bytes = array.data.size(), num_words = bytes / Index{sizeof(Word)};
    if (!array.is_written)
      read_words(words, num_words);
    else if (!array.is_read)
      std::memset(words, 0, static_cast<std::size_t>(bytes));
    else
      update_words(words, num_words);
  }
}

}  // namespace switchyard
