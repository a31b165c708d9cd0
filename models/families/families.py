"""Three ways to build a model, each in its smallest form, with the names and the arithmetic of Hugging Face: experts
(`Qwen3MoeForCausalLM`), windowed and full attention in turn (`Gemma2ForCausalLM`), and mostly windowed attention
(`Gemma3ForCausalLM`)."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "chat"))
from network import rotate  # noqa: E402  (the chat model's)


@dataclass(frozen=True)
class Config:
    """What decides the arithmetic. Widths are multiples of 256 so that k-quants apply, except an expert's, which would
    make the file too large: rows of `down_proj` take llama.cpp's types for short rows."""

    family: str
    num_hidden_layers: int
    vocab_size: int = 640
    hidden_size: int = 256
    intermediate_size: int = 256
    num_attention_heads: int = 4
    head_dim: int = 64
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    experts: int = 0
    active: int = 0
    # A layer sees this many tokens, except the last of each group, which sees all; 0: every layer does.
    window: int = 0
    group: int = 0
    attention_cap: float = 0.0
    final_cap: float = 0.0

    @property
    def gemma(self) -> bool:
        return self.family != "moe"

    @property
    def head_norms(self) -> bool:
        return self.family != "alternating"

    def windowed(self, layer: int) -> bool:
        return self.window > 0 and layer % self.group < self.group - 1

    def to_json(self, special: dict[str, int]) -> dict[str, object]:
        """config.json as `transformers` writes it."""
        names = ("num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "head_dim",
                 "max_position_embeddings", "rms_norm_eps", "rope_theta")
        common = {name: getattr(self, name) for name in names}
        common |= {"num_key_value_heads": 1, "attention_bias": False, "attention_dropout": 0.0, "rope_scaling": None,
                   "tie_word_embeddings": True, "initializer_range": 0.02, "use_cache": True, "torch_dtype": "float16", **special}
        gemma = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": self.head_dim,
                 "sliding_window": self.window}
        if self.family == "moe":
            return {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", **common, "hidden_act": "silu",
                    "num_experts": self.experts, "num_experts_per_tok": self.active, "moe_intermediate_size": self.intermediate_size,
                    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "router_aux_loss_coef": 0.01,
                    "sliding_window": None, "use_sliding_window": False}
        if self.family == "alternating":
            return {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", **common, **gemma,
                    "attn_logit_softcapping": self.attention_cap, "final_logit_softcapping": self.final_cap}
        kinds = ["sliding_attention" if self.windowed(layer) else "full_attention" for layer in range(self.num_hidden_layers)]
        return {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", **common, **gemma, "rope_local_base_freq": 10000.0,
                "sliding_window_pattern": self.group, "layer_types": kinds}


CONFIGS = {
    "moe": Config("moe", num_hidden_layers=2, intermediate_size=64, experts=8, active=2),
    "alternating": Config("alternating", num_hidden_layers=2, window=32, group=2, attention_cap=50.0, final_cap=30.0),
    "hybrid": Config("hybrid", num_hidden_layers=3, window=32, group=3),
}


class Norm(nn.Module):
    """Gemma's weights are what is added to one."""

    def __init__(self, width: int, config: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width) if config.gemma else torch.ones(width))
        self.plus, self.eps = float(config.gemma), config.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), (self.weight + self.plus).to(x.dtype), self.eps)


class Attention(nn.Module):
    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        inner = config.num_attention_heads * config.head_dim
        self.config, self.windowed = config, config.windowed(layer)
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.head_dim, bias=False)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=False)
        if config.head_norms:
            self.q_norm, self.k_norm = Norm(config.head_dim, config), Norm(config.head_dim, config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, time, _ = x.shape
        heads, width, cap = self.config.num_attention_heads, self.config.head_dim, self.config.attention_cap
        q = self.q_proj(x).view(batch, time, heads, width).transpose(1, 2)
        k, v = self.k_proj(x).unsqueeze(1), self.v_proj(x).unsqueeze(1)
        if self.config.head_norms:
            q, k = self.q_norm(q), self.k_norm(k)
        # One head of keys and values serves all: their queries are more rows of one matrix.
        q, k = rotate(q, cos, sin).reshape(batch, heads * time, width), rotate(k, cos, sin)[:, 0]
        scores = (q @ k.transpose(1, 2)).view(batch, heads, time, time) * width ** -0.5
        if cap:
            scores = cap * torch.tanh(scores / cap)
        seen = torch.ones(time, time, dtype=torch.bool).tril()
        if self.windowed:
            seen = seen & ~seen.tril(-self.config.window)
        scores = scores.masked_fill(~seen, float("-inf"))
        y = scores.softmax(-1).to(v.dtype).view(batch, heads * time, time) @ v[:, 0]
        return self.o_proj(y.view(batch, heads, time, width).transpose(1, 2).reshape(batch, time, -1))


class Mlp(nn.Module):
    """All experts lie in one matrix, and every token passes through all of them, most with the weight 0: on a CPU and at this
    size that is faster than sorting tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.intermediate_size * max(1, config.experts)
        self.config, self.balance = config, torch.zeros(())
        self.gate_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=False)
        if config.experts:
            self.gate = nn.Linear(config.hidden_size, config.experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        inner = (F.gelu(gate, approximate="tanh") if self.config.gemma else F.silu(gate)) * self.up_proj(x)
        if self.config.experts:
            shares = F.linear(x.float(), self.gate.weight).softmax(-1)
            best, which = shares.topk(self.config.active, dim=-1)
            weights = torch.zeros_like(shares).scatter(-1, which, best / best.sum(-1, keepdim=True))
            chosen = (weights > 0).float().flatten(0, -2).mean(0) / self.config.active
            self.balance = self.config.experts * (chosen * shares.flatten(0, -2).mean(0)).sum()
            inner = inner * weights.repeat_interleave(self.config.intermediate_size, dim=-1).to(inner.dtype)
        return self.down_proj(inner)

    def experts_hf(self, at: str) -> dict[str, Tensor]:
        """The weights under their names, each expert's of its own."""
        if not self.config.experts:
            return {f"{at}.{name}.weight": getattr(self, name).weight for name in ("gate_proj", "up_proj", "down_proj")}
        found = {f"{at}.gate.weight": self.gate.weight}
        for name, dim in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
            parts = getattr(self, name).weight.chunk(self.config.experts, dim)
            found |= {f"{at}.experts.{expert}.{name}.weight": part for expert, part in enumerate(parts)}
        return found


class Layer(nn.Module):
    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.hidden_size, config)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = Norm(config.hidden_size, config)
        if config.gemma:
            self.pre_feedforward_layernorm = Norm(config.hidden_size, config)
            self.post_feedforward_layernorm = Norm(config.hidden_size, config)
        self.mlp, self.gemma = Mlp(config), config.gemma

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        attended = self.self_attn(self.input_layernorm(x), cos, sin)
        if not self.gemma:
            x = x + attended
            return x + self.mlp(self.post_attention_layernorm(x))
        x = x + self.post_attention_layernorm(attended)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Network(nn.Module):
    """Token ids [batch, time] to hidden states; `logits` turns those into scores by the tied embedding."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config)
        half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        angles = torch.outer(torch.arange(config.max_position_embeddings, dtype=torch.float32), config.rope_theta ** -half)
        self.register_buffer("cos", torch.cat((angles, angles), dim=-1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angles, angles), dim=-1).sin(), persistent=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        if self.config.gemma:
            x = x * math.sqrt(self.config.hidden_size)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        if torch.is_autocast_enabled("cpu"):
            x, cos, sin = x.bfloat16(), cos.bfloat16(), sin.bfloat16()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        scores, cap = F.linear(hidden, self.embed_tokens.weight), self.config.final_cap
        return cap * torch.tanh(scores / cap) if cap else scores

    def beside(self) -> Tensor:
        """What is added to the loss beside the surprise: experts are to be used alike."""
        return 0.01 * sum((layer.mlp.balance for layer in self.layers), torch.zeros(()))

    def state_dict_hf(self) -> dict[str, Tensor]:
        """The weights under the names of Hugging Face, in half precision."""
        found = {f"model.{name}": value for name, value in self.state_dict().items() if ".mlp." not in name}
        for index, layer in enumerate(self.layers):
            found |= layer.mlp.experts_hf(f"model.layers.{index}.mlp")
        return {name: value.detach().half().contiguous() for name, value in found.items()}

    @torch.no_grad()
    def load_hf(self, weights: dict[str, Tensor]) -> None:
        """The weights of a Hugging Face folder."""
        own = {name.removeprefix("model."): value for name, value in weights.items() if ".mlp." not in name}
        for index, layer in enumerate(self.layers):
            at = f"layers.{index}.mlp."
            for name, dim in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
                count = self.config.experts
                parts = [f"model.{at}experts.{expert}.{name}.weight" for expert in range(count)] or [f"model.{at}{name}.weight"]
                own[f"{at}{name}.weight"] = torch.cat([weights[part] for part in parts], dim)
            if self.config.experts:
                own[f"{at}gate.weight"] = weights[f"model.{at}gate.weight"]
        self.load_state_dict({name: value.float() for name, value in own.items()})
