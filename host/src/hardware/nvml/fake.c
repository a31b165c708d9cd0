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

#ifndef GONE_AFTER
#define GONE_AFTER 1000000
#endif

enum { SUCCESS = 0, NO_PERMISSION = 4, DRIVER_GONE = 12, GPU_IS_LOST = 15 };

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
#ifdef LIES
    *version = -1;
#else
    *version = 12040;
#endif
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    static int asked = 0;
    if (++asked > GONE_AFTER) return DRIVER_GONE;
#ifdef LIES
    *count = 4000000000u;
#else
    *count = COUNT;
#endif
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **device) {
    *device = &devices[index % 3];
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
#ifdef LIES
    info[0] = ~0ull - 1;
    info[1] = ~0ull;
#else
    info[0] = 24ull << 30;
    info[1] = 20ull << 30;
#endif
    info[2] = 4ull << 30;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(device_t *device, int *major, int *minor) {
    (void)device;
#ifdef LIES
    *major = -8;
    *minor = 2147483647;
#else
    *major = 8;
    *minor = 9;
#endif
    return SUCCESS;
}

int nvmlDeviceGetTemperature(device_t *device, int sensor, unsigned *degrees) {
    if (device->index == 2 || sensor != 0) return NO_PERMISSION;
#ifdef LIES
    *degrees = 4294967295u;
#else
    *degrees = 71;
#endif
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(device_t *device, unsigned percent[2]) {
    if (device->index == 2) return NO_PERMISSION;
#ifdef LIES
    percent[0] = 250;
#else
    percent[0] = 93;
#endif
    percent[1] = 40;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(device_t *device, unsigned *milliwatts) {
    if (device->index == 2) return NO_PERMISSION;
#ifdef LIES
    *milliwatts = 4000000000u;
#else
    *milliwatts = 287400;
#endif
    return SUCCESS;
}

/* Idle, power cap, thermal slowdown of the hardware; those of which a definition tells, if there is one. */
#ifndef REASONS
#define REASONS (0x1 | 0x4 | 0x40)
#endif
int nvmlDeviceGetCurrentClocksThrottleReasons(device_t *device, unsigned long long *reasons) {
    if (device->index == 2) return NO_PERMISSION;
#ifdef LIES
    *reasons = ~0ull;
#else
    *reasons = REASONS;
#endif
    return SUCCESS;
}
