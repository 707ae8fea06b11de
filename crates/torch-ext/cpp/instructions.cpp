#include "instructions.h"

#include <algorithm>

#include "amx.h"

namespace torch_ext {
namespace {

Instructions detect() noexcept {
#ifdef HAS_INSTRUCTION_SETS
  if (has_amx()) return Instructions::Amx;
  if (__builtin_cpu_supports("x86-64-v4")) return Instructions::V4;
  if (__builtin_cpu_supports("x86-64-v3")) return Instructions::V3;
#endif
  return Instructions::Default;
}

constexpr int32_t NONE = -1;
thread_local int32_t forced = NONE;

}  // namespace

Instructions widest_instructions() noexcept {
  static const Instructions widest = detect();
  return widest;
}

Instructions instructions() noexcept { return forced == NONE ? widest_instructions() : Instructions(forced); }

}  // namespace torch_ext

int32_t torch_ext_widest_instructions() noexcept { return int32_t(torch_ext::widest_instructions()); }

void torch_ext_force_instructions(int32_t set) noexcept {
  torch_ext::forced = std::min(std::max(set, torch_ext::NONE), torch_ext_widest_instructions());
}
