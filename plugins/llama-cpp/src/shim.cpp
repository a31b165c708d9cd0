// llama.cpp counts its buffers exactly, but only tells C++ (src/llama-ext.h). This hands the numbers over as plain C.
// The declarations repeat that header, which the library's package does not install; the version is pinned.

#include <cstddef>
#include <cstdint>
#include <map>

struct llama_context;
struct ggml_backend_buffer_type;

struct llama_memory_breakdown_data {
    size_t model   = 0;
    size_t context = 0;
    size_t compute = 0;
};

using llama_memory_breakdown = std::map<ggml_backend_buffer_type *, llama_memory_breakdown_data>;

llama_memory_breakdown llama_get_memory_breakdown(const llama_context * ctx);

struct pajamas_buffer_memory {
    ggml_backend_buffer_type * buffer_type;
    uint64_t weights;
    uint64_t memory;
    uint64_t compute;
};

// Writes at most `capacity` entries and returns how many there are, or -1 when llama.cpp threw.
extern "C" int64_t pajamas_memory_breakdown(const llama_context * ctx, pajamas_buffer_memory * out, int64_t capacity) {
    try {
        int64_t n = 0;
        for (const auto & [buffer_type, bytes] : llama_get_memory_breakdown(ctx)) {
            if (n < capacity) {
                out[n] = { buffer_type, bytes.model, bytes.context, bytes.compute };
            }
            ++n;
        }
        return n;
    } catch (...) {
        return -1;
    }
}
