// Fused multiply-adds on numbers that stay in registers: as many operations a second as one core has.
#pragma once

namespace switchyard {

void run_multiply_adds();
// Operations of one run: a multiplication and an addition each.
double multiply_adds_flop();

}  // namespace switchyard
