#include "parallel.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include "guarded.h"

int32_t torch_ext_parallel_map(int64_t count, void (*body)(void* context, int64_t index), void* context,
                               TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    const bool records_gradients = c10::GradMode::is_enabled();
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      const c10::AutoGradMode mode(records_gradients);
      for (int64_t index = begin; index < end; ++index) body(context, index);
    });
  });
}
