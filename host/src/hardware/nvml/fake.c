/* Answers like NVIDIA's management library on a machine with three GPUs: one is whole, one is lost, and of one the
 * memory may not be known. Only for tests. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifndef INIT
#define INIT 0
#endif
#ifndef COUNT
#define COUNT 3
#endif

enum { SUCCESS = 0, NO_PERMISSION = 4, GPU_IS_LOST = 15 };

typedef struct { int index; } device_t;
static device_t devices[3] = {{0}, {1}, {2}};

#ifndef OLD
int nvmlInit_v2(void) { return INIT; }
#endif

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int status) { return status == 9 ? "Driver Not Loaded" : "Other"; }

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "550.54.15");
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = 12040;
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = COUNT;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **device) {
    *device = &devices[index];
    return index == 1 ? GPU_IS_LOST : SUCCESS;
}

int nvmlDeviceGetName(device_t *device, char *text, unsigned size) {
    (void)device;
    snprintf(text, size, "NVIDIA Test GPU");
    return SUCCESS;
}

int nvmlDeviceGetUUID(device_t *device, char *text, unsigned size) {
    snprintf(text, size, "GPU-%d", device->index);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(device_t *device, uint64_t info[3]) {
    if (device->index == 2) return NO_PERMISSION;
    info[0] = 24ull << 30;
    info[1] = 20ull << 30;
    info[2] = 4ull << 30;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(device_t *device, int *major, int *minor) {
    (void)device;
    *major = 8;
    *minor = 9;
    return SUCCESS;
}
