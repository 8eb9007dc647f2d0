#include "app/operands.hpp"

#include <algorithm>
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

void fill_array(const Context& context, void* array, Index bytes) {
  if (context.device == Device::kCpu) return fill_operand(array, static_cast<std::size_t>(bytes));
  static const auto piece = [] {
    std::vector<std::byte> numbers(4 << 20);
    fill_operand(numbers.data(), numbers.size());
    return numbers;
  }();
  const auto piece_bytes = static_cast<Index>(piece.size());
  for (Index done = 0; done < bytes; done += piece_bytes)
    kernels::copy_to_device(context, static_cast<std::byte*>(array) + done, piece.data(),
                            std::min(piece_bytes, bytes - done));
}

void* Operands::add(Index bytes, bool is_read, bool is_written) {
  arrays_.push_back({kernels::Array<std::byte>(context_.device, bytes), is_read, is_written});
  void* data = arrays_.back().data.data();
  // Written too, so that its pages are there before the clock runs.
  fill_array(context_, data, bytes);
  return data;
}

kernels::Operand Operands::read_operand(Index rows, Index cols) {
  if (rounds()) return {nullptr, read<kernels::Bf16>(rows * kernels::rounded_cols(cols))};
  return read(rows * cols);
}

kernels::NewOperand Operands::write_operand(Index rows, Index cols, kernels::Readers readers) {
  const bool rounded = readers != kernels::Readers::kOthers && rounds();
  const bool values = !rounded || readers != kernels::Readers::kProducts;
  return {values ? write(rows * cols) : nullptr,
          rounded ? write<kernels::Bf16>(rows * kernels::rounded_cols(cols)) : nullptr};
}

kernels::NewOperand Operands::update_operand(Index rows, Index cols) {
  if (rounds()) return {nullptr, update<kernels::Bf16>(rows * kernels::rounded_cols(cols))};
  return update(rows * cols);
}

double Operands::bytes() const {
  double sum = 0;
  for (const Array& array : arrays_) sum += static_cast<double>(array.data.size()) * (array.is_read + array.is_written);
  return sum;
}

void Operands::copy_as_much() {
  const Index half = std::max<Index>(1, static_cast<Index>(bytes() / 2)), place = round_up(half, 256);
  if (copied_.size() == 0) copied_ = kernels::Array<std::byte>(context_.device, place + half);
  kernels::copy(context_, copied_.data() + place, copied_.data(), half);
}

void Operands::pass() {
  if (context_.device == Device::kCuda) return copy_as_much();
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
