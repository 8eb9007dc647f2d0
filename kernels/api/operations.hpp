// The arguments of all operations: what the devices' own operations.hpp have in common.
#pragma once

#include "kernels/api/attention.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/embedding.hpp"
#include "kernels/api/gate.hpp"
#include "kernels/api/gate_logits.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/layernorm.hpp"
#include "kernels/api/loss.hpp"
#include "kernels/api/memory.hpp"
#include "kernels/api/optimizer.hpp"
#include "kernels/api/patch_conv.hpp"
#include "kernels/api/reduce.hpp"
#include "kernels/api/routing.hpp"
#include "kernels/api/tree.hpp"
