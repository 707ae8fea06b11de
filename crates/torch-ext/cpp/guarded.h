// How a C function of the shim runs its body.
#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>
#include <string_view>

#include "shim.h"

namespace torch_ext {

inline void say(TorchExtMessage message, const char* what) noexcept {
  if (message.capacity == 0) return;
  std::strncpy(message.text, what, message.capacity - 1);
  message.text[message.capacity - 1] = '\0';
}

// Gloo and the store raise plain errors whose words alone say what kind they are of.
inline int32_t status_of(std::string_view what) noexcept {
  const auto has = [what](std::string_view words) { return what.find(words) != std::string_view::npos; };
  // A time that ran out closes all connections of a group, which is what operations beside the first one hear of.
  if (has("Timed out") || has("timed out") || has("imeout")) return TORCH_EXT_TIMED_OUT;
  if (has("Connection closed") || has("Connection reset") || has("Broken pipe") || has("ocket closed") ||
      has("Connection refused") || has("failed to recv")) {
    return TORCH_EXT_CONNECTION_LOST;
  }
  return TORCH_EXT_FAILED;
}

// Runs `body`, and lets nothing out of it but a status: an exception that crosses into Rust would end the program.
template <class Body>
int32_t guarded(TorchExtMessage message, Body body) noexcept {
  const auto failed = [message](const char* what) noexcept {
    say(message, what);
    return status_of(what);
  };
  try {
    body();
    return TORCH_EXT_DONE;
  } catch (const c10::Error& error) {
    return failed(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return failed(error.what());
  } catch (...) {
    return failed("an exception of unknown type");
  }
}

}  // namespace torch_ext
