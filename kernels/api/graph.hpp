// Work of a GPU that its host gives at one go, again and again: a CUDA graph.
#pragma once

#include <functional>
#include <memory>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

class Graph {
 public:
  virtual ~Graph() = default;

  // Gives all that was recorded to the context's stream, with the same addresses and values.
  virtual void launch(const Context& context) = 0;
  // What copy_to_device() was given for `to` is this at the next launches, as many bytes as then. The host must have
  // waited for the launches before.
  virtual void replace_copy(const void* to, const void* from, Index bytes) = 0;
};

// What `work` gives to the context's stream, and to those that wait for it and that it waits for, is recorded and not
// done. `work` fails where it waits for the device, or needs more of its memory than there is already.
std::unique_ptr<Graph> record(const Context& context, const std::function<void()>& work);

}  // namespace switchyard::kernels
