// A line that says how far a measurement is: shown on a terminal, renewed in place, and gone at the end. Elsewhere
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

  void show(const std::string& text);
  void clear();

 private:
  int terminal_ = -1;
  bool shown_ = false;
};

}  // namespace switchyard
