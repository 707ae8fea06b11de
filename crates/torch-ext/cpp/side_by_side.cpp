#include "side_by_side.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include "guarded.h"

int32_t torch_ext_side_by_side(int64_t count, void (*body)(void* context, int64_t part), void* context,
                               TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    const bool asks_for_gradients = c10::GradMode::is_enabled();
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      const c10::AutoGradMode mode(asks_for_gradients);
      for (int64_t part = begin; part < end; ++part) body(context, part);
    });
  });
}
