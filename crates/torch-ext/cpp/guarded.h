// How a C function of the shim runs its body.
#pragma once

#include "shim.h"

namespace torch_ext {

// Writes the current exception's text into `message` and returns its status. Call it in a catch block.
int32_t report_exception(TorchExtMessage message) noexcept;

// Runs `body` and returns a status: an exception that crosses into Rust would end the program.
template <class Body>
int32_t guarded(TorchExtMessage message, Body body) noexcept {
  try {
    body();
    return TORCH_EXT_DONE;
  } catch (...) {
    return report_exception(message);
  }
}

}  // namespace torch_ext
