"""The encoders where they are deployed: sharded, in bfloat16, on fake tensors, their bytes attributed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard

from liveavatar_core import scopes
from liveavatar_core.encoders.audio import AudioEncoder, encode_audio
from liveavatar_core.encoders.params import AudioEncoderParams, TextEncoderParams, VaeParams
from liveavatar_core.encoders.text import ByteTokenizer, TextEncoder, Tokens, encode_text
from liveavatar_core.encoders.vae import StreamingDecoder, VideoVae, decode_video, encode_video
from liveavatar_core.torch_private import FakeTensorMode, TorchDispatchMode, storage_key, tree_leaves

TEXT = TextEncoderParams(vocab_size=260, d_model=32, d_kv=12, d_ff=64, num_layers=2, num_heads=4)
AUDIO = AudioEncoderParams(
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    conv_dim=(8,) * 7,
    num_conv_pos_embeddings=32,
    num_conv_pos_embedding_groups=4,
)
VAE = VaeParams(base_dim=8)

Encoders = tuple[nn.Module, nn.Module, VideoVae]


def encoders(dtype: torch.dtype = torch.float32) -> Encoders:
    torch.manual_seed(0)
    text, audio, vae = TextEncoder(TEXT), AudioEncoder(AUDIO), VideoVae(VAE)
    return text.to(dtype), audio.to(dtype), vae.to(dtype)


def run(parts: Encoders, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Context, audio features, latents of a video, the video decoded in two pieces."""
    text, audio, vae = parts
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(1, 3, 9, 32, 32, generator=generator).to(dtype)
    latents, decoder = encode_video(vae, video), StreamingDecoder(vae)
    frames = [x for piece in latents.split([1, 2], dim=2) for x in decoder.frames(piece, dtype)]
    return [
        encode_text(text, ByteTokenizer(260, 16)("hello"), "cpu"),
        encode_audio(audio, torch.randn(16_000, generator=generator), 12, dtype),
        latents,
        torch.cat(frames, dim=2),
    ]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    store = tmp_path_factory.mktemp("rendezvous") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


VAE_NETWORKS = ("encoder", "quant_conv", "post_quant_conv", "decoder")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sharded_by_parameter_equals_whole_to_the_bit(mesh: DeviceMesh, dtype: torch.dtype):
    """Kept in float32 and computed in `dtype`. Sharding casts arguments, so it must not lose the caches."""
    text, audio, vae = encoders()
    policy = MixedPrecisionPolicy(param_dtype=dtype)
    units = [*text.encoder.block, text.encoder.embed_tokens, text, *audio.wav2vec2.encoder.layers, audio]
    for unit in [*units, *(getattr(vae, name) for name in VAE_NETWORKS)]:
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    for have, expected in zip(run((text, audio, vae), dtype), run(encoders(dtype), dtype), strict=True):
        assert torch.equal(have, expected)


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`")
def test_flat_sharding_equals_whole_to_the_bit(mesh: DeviceMesh):
    text, audio, vae = encoders()
    wrap: Callable[[nn.Module], nn.Module] = lambda part: FullyShardedDataParallel(  # noqa: E731
        part, device_id=torch.device("cpu"), use_orig_params=True
    )
    for name in VAE_NETWORKS:
        setattr(vae, name, wrap(getattr(vae, name)))
    for have, expected in zip(run((wrap(text), wrap(audio), vae)), run(encoders()), strict=True):
        assert torch.equal(have, expected)


def test_bfloat16_stays_near_float32():
    for have, expected in zip(run(encoders(torch.bfloat16), torch.bfloat16), run(encoders()), strict=True):
        error = (have.float() - expected).norm() / expected.norm()
        assert error < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_real_size_runs_on_fake_tensors(dtype: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with FakeTensorMode():
            parts = (
                TextEncoder(TextEncoderParams()),
                AudioEncoder(AudioEncoderParams()),
                VideoVae(VaeParams()),
            )
            assert_fake_shapes(*parts, dtype)
    finally:
        torch.set_default_dtype(before)


def assert_fake_shapes(text: TextEncoder, audio: AudioEncoder, vae: VideoVae, dtype: torch.dtype) -> None:
    tokens = Tokens(ids_BL=torch.empty(1, 512, dtype=torch.int64), mask_BL=torch.empty(1, 512, dtype=torch.bool))
    assert encode_text(text, tokens, "cpu").shape == (1, 512, 4096)
    voice = torch.empty(96_000, dtype=torch.float32)
    assert encode_audio(audio, voice, 48, dtype).shape == (1, 25, 1024, 192)
    latents = encode_video(vae, torch.empty(1, 3, 9, 704, 384, dtype=dtype))
    assert latents.shape == (1, 16, 3, 88, 48)
    assert latents.dtype == torch.float32
    assert decode_video(vae, latents, dtype).shape == (1, 3, 9, 704, 384)


class BirthRegister(TorchDispatchMode):
    """The category that was declared when each storage was first seen."""

    def __init__(self) -> None:
        super().__init__()
        self.category: dict[int, str] = {}
        self.alive: list[Tensor] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.category.setdefault(storage_key(tensor.untyped_storage()), scopes.current().category)
                self.alive.append(tensor)  # so that no storage's identity is used again
        return result


def test_cached_frames_are_born_as_decoder_cache():
    vae = encoders()[2]
    decoder = StreamingDecoder(vae)
    with BirthRegister() as register:
        pieces = list(decoder.frames(torch.randn(1, 16, 4, 4, 4)))
    cached = [x for x in (decoder.cache[slot] for slot in range(len(decoder.cache))) if isinstance(x, Tensor)]
    assert {register.category[storage_key(x.untyped_storage())] for x in cached} == {"decoder_cache"}
    assert {register.category[storage_key(x.untyped_storage())] for x in pieces} == {"activations"}
    assert sum(x.nbytes for x in cached) == decoder.cache.nbytes > 0


def test_decoding_allocates_no_second_video():
    """Frames go into their place as they come; joining them afterwards would hold everything twice."""
    vae = encoders()[2]
    with BirthRegister() as register:
        video = decode_video(vae, torch.randn(1, 16, 6, 4, 4))
    whole = storage_key(video.untyped_storage())
    sizes = [x.nbytes for x in register.alive if storage_key(x.untyped_storage()) != whole]
    assert sizes
    assert video.nbytes not in sizes
