// See README.md.
#pragma once

typedef struct cusparseContext* cusparseHandle_t;
typedef enum { CUSPARSE_STATUS_SUCCESS } cusparseStatus_t;
extern "C" const char* cusparseGetErrorString(cusparseStatus_t status);
