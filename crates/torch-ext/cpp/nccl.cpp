#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <stdexcept>

#include "distributed.h"
#include "guarded.h"
#include "handles.h"

int32_t torch_ext_group_nccl(TorchExtStore* store, TorchExtBytes name, TorchExtRank rank, int64_t timeout_ms,
                             TorchExtGroup** out, TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
#ifdef TORCH_EXT_NCCL_MISSING
    // The code below was compiled against types of another size (cuda_declarations/README.md).
    throw std::runtime_error("this program was built without " TORCH_EXT_NCCL_MISSING
                             ": install those wheels beside torch, or set CUDA_HOME, and build it again");
#endif
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(torch_ext::text(name), store->store);
    auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(prefixed, rank.index, rank.world_size, options);
    *out = new TorchExtGroup{nccl, [nccl = nccl.get()] { nccl->abort(); }};
  });
}
