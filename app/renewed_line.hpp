// A line that says how far something is: shown on a terminal, renewed in place, and gone at the end. Elsewhere
// nothing is shown.
#pragma once

#include <string>

namespace switchyard {

class RenewedLine {
 public:
  // speaks: whether this rank shows anything.
  explicit RenewedLine(bool speaks);
  ~RenewedLine();
  RenewedLine(const RenewedLine&) = delete;
  RenewedLine& operator=(const RenewedLine&) = delete;

  // Of the terminal, the last one left free; 0: this is none.
  std::size_t columns() const;
  // As many characters of UTF-8 text as there are columns for.
  void show(const std::string& text);
  void clear();

 private:
  int terminal_ = -1;
  bool shown_ = false;
};

}  // namespace switchyard
