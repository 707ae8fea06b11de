// The instruction set that the kernels compute with. One binary serves every processor of its family: each kernel is
// compiled once per set, and runs in the widest one that the processor has.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__linux__)
#define HAS_INSTRUCTION_SETS
#define TARGET_V3 __attribute__((noinline, target("arch=x86-64-v3")))
#define TARGET_V4 __attribute__((noinline, target("arch=x86-64-v4")))
#endif

namespace torch_ext {

// In ascending order: each set includes those before it. Amx multiplies bf16 matrices by tiles, and is V4 otherwise.
enum class Instructions : int32_t { Default = 0, V3 = 1, V4 = 2, Amx = 3 };

// The widest set that this processor has and the system lets this process use.
Instructions widest_instructions() noexcept;

// The set of the kernels that this thread starts: the widest one, unless the thread forces another.
Instructions instructions() noexcept;

// Calls `kernel(arguments...)` compiled for `set`. What a kernel calls is inlined, and so compiled for that set too.
template <class Kernel, class... Arguments>
__attribute__((noinline)) void run_default(const Kernel& kernel, Arguments&... arguments) {
  kernel(arguments...);
}

#ifdef HAS_INSTRUCTION_SETS
template <class Kernel, class... Arguments>
TARGET_V3 void run_v3(const Kernel& kernel, Arguments&... arguments) {
  kernel(arguments...);
}

template <class Kernel, class... Arguments>
TARGET_V4 void run_v4(const Kernel& kernel, Arguments&... arguments) {
  kernel(arguments...);
}

template <class Kernel, class... Arguments>
void run(Instructions set, const Kernel& kernel, Arguments&... arguments) {
  switch (set) {
    case Instructions::Amx:
    case Instructions::V4: return run_v4(kernel, arguments...);
    case Instructions::V3: return run_v3(kernel, arguments...);
    case Instructions::Default: break;
  }
  run_default(kernel, arguments...);
}
#else
template <class Kernel, class... Arguments>
void run(Instructions, const Kernel& kernel, Arguments&... arguments) {
  run_default(kernel, arguments...);
}
#endif

}  // namespace torch_ext

extern "C" {

int32_t torch_ext_widest_instructions(void) noexcept;

// The set of the kernels that this thread starts from now on: one up to the widest, or the widest where it is -1. For
// tests and benchmarks.
void torch_ext_force_instructions(int32_t set) noexcept;
}
