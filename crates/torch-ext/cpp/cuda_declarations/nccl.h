// See README.md.
#pragma once

#include <cuda_runtime_api.h>

#define NCCL_VERSION(major, minor, patch) ((major) * 10000 + (minor) * 100 + (patch))
// The oldest that c10d takes: what came later it then leaves out.
#define NCCL_VERSION_CODE NCCL_VERSION(2, 23, 0)
#define NCCL_SPLIT_NOCOLOR (-1)
#define NCCL_CONFIG_INITIALIZER {}

extern "C" {
typedef struct ncclComm* ncclComm_t;
typedef struct {
  char internal[128];
} ncclUniqueId;
typedef struct {
  int blocking;
} ncclConfig_t;
typedef enum { ncclSuccess, ncclInProgress } ncclResult_t;
typedef enum { ncclSum } ncclRedOp_t;
typedef enum {
  ncclInt8,
  ncclUint8,
  ncclInt32,
  ncclInt64,
  ncclHalf,
  ncclFloat,
  ncclDouble,
  ncclBfloat16,
} ncclDataType_t;
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error);
ncclResult_t ncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm);
}
