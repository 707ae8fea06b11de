#include "guarded.h"

#include <c10/util/Exception.h>
#include <gloo/common/error.h>
#include <torch/csrc/distributed/c10d/exception.h>

#include <cstring>
#include <exception>
#include <string_view>

namespace torch_ext {
namespace {

bool contains(const char* text, std::string_view words) {
  return std::string_view(text).find(words) != std::string_view::npos;
}

// Gloo raises one type, IoException, for a lost connection and for a wait that timed out, in unbound_buffer.cc: only
// the text differs. A timeout closes all connections of a group, and the other operations of that group then report the
// second text.
int32_t status_of_gloo(const char* text) {
  const bool timed_out = contains(text, "Timed out waiting") || contains(text, "Application timeout");
  return timed_out ? TORCH_EXT_TIMED_OUT : TORCH_EXT_CONNECTION_LOST;
}

// c10d's socket helpers raise the base type for a timeout of a system call (SYSCHECK in Utils.hpp), with this text
// alone.
int32_t status_of_socket(const char* text) {
  return contains(text, "Socket Timeout") ? TORCH_EXT_TIMED_OUT : TORCH_EXT_CONNECTION_LOST;
}

int32_t report(TorchExtMessage message, const char* text, int32_t status) {
  if (message.capacity > 0) {
    std::strncpy(message.text, text, message.capacity - 1);
    message.text[message.capacity - 1] = '\0';
  }
  return status;
}

}  // namespace

int32_t report_exception(TorchExtMessage message) noexcept {
  try {
    throw;
  } catch (const c10d::TimeoutError& error) {
    return report(message, error.what_without_backtrace(), TORCH_EXT_TIMED_OUT);
  } catch (const c10::DistStoreError& error) {
    // A store raises it where a wait for a key, or for other ranks, timed out.
    return report(message, error.what_without_backtrace(), TORCH_EXT_TIMED_OUT);
  } catch (const c10::DistNetworkError& error) {
    const char* const text = error.what_without_backtrace();
    return report(message, text, status_of_socket(text));
  } catch (const c10::Error& error) {
    return report(message, error.what_without_backtrace(), TORCH_EXT_FAILED);
  } catch (const gloo::IoException& error) {
    return report(message, error.what(), status_of_gloo(error.what()));
  } catch (const std::exception& error) {
    return report(message, error.what(), TORCH_EXT_FAILED);
  } catch (...) {
    return report(message, "an exception of unknown type", TORCH_EXT_FAILED);
  }
}

}  // namespace torch_ext
