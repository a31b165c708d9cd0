// What Rust cannot do itself. llama.cpp counts its buffers exactly, but only tells C++ (src/llama-ext.h): the numbers are
// handed over as plain C. And some of its C functions let C++ exceptions out, which would end the process at the border
// to Rust: they are caught here. The declarations repeat headers that the library's package does not install; the
// version is pinned.

#include <cstddef>
#include <cstdint>
#include <map>

struct llama_context;
struct llama_vocab;
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

extern "C" {

int32_t llama_tokenize(const llama_vocab *, const char *, int32_t, int32_t *, int32_t, bool, bool);
int32_t llama_token_to_piece(const llama_vocab *, int32_t, char *, int32_t, int32_t, bool);
int32_t llama_detokenize(const llama_vocab *, const int32_t *, int32_t, char *, int32_t, bool, bool);

// llama.cpp's own value for a result that cannot be given.
constexpr int32_t PAJAMAS_THROWN = INT32_MIN;

int32_t pajamas_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, int32_t * tokens,
                         int32_t capacity, bool add_special, bool parse_special) {
    try {
        return llama_tokenize(vocab, text, text_len, tokens, capacity, add_special, parse_special);
    } catch (...) {
        return PAJAMAS_THROWN;
    }
}

int32_t pajamas_token_to_piece(const llama_vocab * vocab, int32_t token, char * buffer, int32_t size, bool special) {
    try {
        return llama_token_to_piece(vocab, token, buffer, size, 0, special);
    } catch (...) {
        return PAJAMAS_THROWN;
    }
}

int32_t pajamas_detokenize(const llama_vocab * vocab, const int32_t * tokens, int32_t count, char * buffer,
                           int32_t size, bool special) {
    try {
        return llama_detokenize(vocab, tokens, count, buffer, size, false, special);
    } catch (...) {
        return PAJAMAS_THROWN;
    }
}

struct llama_batch {
    int32_t    n_tokens;
    int32_t *  token;
    float *    embd;
    int32_t *  pos;
    int32_t *  n_seq_id;
    int32_t ** seq_id;
    int8_t *   logits;
};

int32_t llama_decode(llama_context *, llama_batch);

// -2, llama.cpp's value for a failed allocation, is what an exception here means.
int32_t pajamas_decode(llama_context * ctx, llama_batch batch) {
    try {
        return llama_decode(ctx, batch);
    } catch (...) {
        return -2;
    }
}

struct llama_adapter_lora;

int32_t llama_set_adapters_lora(llama_context *, llama_adapter_lora **, size_t, float *);

int32_t pajamas_set_adapters(llama_context * ctx, llama_adapter_lora ** adapters, size_t count, float * scales) {
    try {
        return llama_set_adapters_lora(ctx, adapters, count, scales);
    } catch (...) {
        return -2;
    }
}

}
