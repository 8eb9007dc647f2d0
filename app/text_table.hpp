// Rows of cells in columns, for people: plain or as Markdown.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

// The first column is aligned to the left, others to the right.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> heading) : rows_{std::move(heading)}, left_(rows_[0].size()) {
    left_[0] = true;
  }
  TextTable& left_align(std::size_t column) {
    left_[column] = true;
    return *this;
  }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void print(bool markdown = false) const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<bool> left_;
};

}  // namespace switchyard
