"""Calibration: bits that are copied, broken tokens, factors of any scale, what is refused, and compilers."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from imc_lite.kernels.calibrate import LowRankMaps, calibrate, reference  # noqa: E402
from imc_lite.kernels.calibrate.spec import CALIBRATE  # noqa: E402
from imc_lite.kernels.calibrate.triton import calibrate_triton  # noqa: E402
from imc_lite.kernels.match import WhitenedPrototypes, match  # noqa: E402
from kernel_cases import DEVICE, DTYPES, assert_near, error, poisoned, randn  # noqa: E402, F401

from imc_lite.errors import ImcError  # noqa: E402


def maps_of(count, width, rank, dtype=torch.float32, **changed):
    given = {
        "noisy_mean": randn(count, width, seed=7),
        "clean_mean": randn(count, width, seed=8),
        "down": randn(count, width, rank, seed=9, scale=width**-0.5),
        "up": randn(count, rank, width, seed=10, scale=rank**-0.5),
    }
    return LowRankMaps.build(**{**given, **changed}, dtype=dtype, device=DEVICE)


def weights(batch, count, active):
    """float32 [B, K] with `active` positive entries a row, at different places."""
    table = torch.zeros(batch, count)
    for b in range(batch):
        for j in range(active):
            table[b, (3 * b + 2 * j) % count] = 0.3 + 0.5 * j
    return table.to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_without_weight_every_bit_is_copied(dtype):
    maps = maps_of(4, 66, 8, dtype)
    x = randn(2, 9, 66, dtype=dtype)
    x[0, 0, 0], x[0, 1, 1], x[0, 2, 2] = -0.0, float("nan"), torch.finfo(dtype).smallest_normal / 2
    w = torch.zeros(2, 4, device=DEVICE)
    w[1, 2] = 1.0
    for found, bad in (calibrate_triton(x, w, *maps.tensors()), reference.calibrate(x, w, *maps.tensors())):
        assert torch.equal(found[0].view(torch.uint8), x[0].view(torch.uint8))
        assert not torch.equal(found[1], x[1])
        assert bad.nonzero().tolist() == [[0, 1]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("active", [1, 2, 3])
def test_a_broken_token_is_reported_copied_and_kept_to_itself(dtype, active):
    maps = maps_of(5, 40, 6, dtype)
    x, w = randn(1, 20, 40, dtype=dtype), weights(1, 5, active)
    whole, _ = calibrate_triton(x, w, *maps.tensors())
    x[0, 3, 39] = float("inf")
    found, bad = calibrate_triton(x, w, *maps.tensors())
    assert bad.nonzero().tolist() == [[0, 3]]
    assert torch.equal(found[0, 3], x[0, 3])
    rest = [i for i in range(20) if i != 3]
    assert torch.equal(found[0, rest], whole[0, rest])
    with pytest.raises(ImcError, match="NaN or Inf"):
        calibrate(x, w, maps, check=True)


def test_weights_of_any_stride_are_read_in_place():
    tensors, w = maps_of(3, 24, 4).tensors(), weights(2, 6, 1)[:, ::2]
    x = randn(2, 7, 24)
    assert not w.is_contiguous()
    assert_near(calibrate_triton(x, w, *tensors), CALIBRATE.exact(x, w, *tensors), 1e-5)


def test_half_precision_factors_of_any_scale_stay_in_range():
    far = {"down": randn(1, 50, 8, seed=3, scale=2e5), "up": randn(1, 8, 50, seed=4, scale=1e-7)}
    tensors = maps_of(1, 50, 8, torch.float16, **far).tensors()
    x, w = randn(1, 11, 50, dtype=torch.float16), torch.ones(1, 1, device=DEVICE)
    found, _ = calibrate_triton(x, w, *tensors)
    assert error(found, CALIBRATE.exact(x, w, *tensors)[0]) < CALIBRATE.tolerance[torch.float16]


def test_wrong_input_is_refused_in_one_line():
    maps, x, w = maps_of(3, 8, 2), randn(1, 4, 8), torch.ones(1, 3, device=DEVICE)
    fields = dict(zip(LowRankMaps.__dataclass_fields__, maps.tensors(), strict=True))
    cases = [
        (lambda: calibrate(x.clone().requires_grad_(), w, maps), "no_grad"),
        (lambda: calibrate(x.half(), w, maps), "float16"),
        (lambda: calibrate(x[..., :7], w, maps), "7 channels"),
        (lambda: calibrate(x[0], w, maps), "3 dimensions"),
        (lambda: calibrate(x, w[:, :2], maps), "weights"),
        (lambda: calibrate(x[:, :0], w, maps), "empty"),
        (lambda: maps_of(65, 4, 2), "65"),
        (lambda: maps_of(2, 4, 129), "129"),
        (lambda: maps_of(2, 8193, 1), "8193"),
        (lambda: maps_of(2, 4, 1, torch.float64), "float64 have no kernel"),
        (lambda: maps_of(2, 4, 1, torch.float16, down=randn(2, 4, 1) * 1e9, up=randn(2, 1, 4) * 1e9), "too large"),
        # Made without `build`, they are checked no less.
        (lambda: LowRankMaps(**{**fields, "up": fields["up"].half()}), "up is float16 .*wanted float32"),
        (lambda: LowRankMaps(**{**fields, "down": randn(3, 2, 8).mT}), "down .*contiguous"),
        (lambda: LowRankMaps(**{**fields, "shift": randn(3, 7)}), r"shift is \[3, 7\], wanted \[3, 8\]"),
        (lambda: LowRankMaps(**{**fields, "offset": randn(3, 2) / 0}), "offset holds a NaN or Inf"),
    ]
    for call, text in cases:
        with pytest.raises(ImcError, match=text) as caught:
            call()
        assert "\n" not in str(caught.value)
    with torch.no_grad():
        calibrate(x.clone().requires_grad_(), w, maps)


@pytest.mark.slow
def test_compile_sees_one_graph_at_two_sizes():
    maps = maps_of(3, 8, 2)
    sizes = {"mean": (16,), "whiten": (16, 3), "prototypes": (4, 3), "bias": (4,), "precision": (16,)}
    given = {name: randn(*size, seed=i).abs() for i, (name, size) in enumerate(sizes.items())}
    prototypes = WhitenedPrototypes.build(**given, reconstruct=randn(3, 16), device=DEVICE)

    def both(x):
        return calibrate(x, match(x[:, None], prototypes).probabilities[:, :3].contiguous(), maps)[0]

    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, tokens in ((2, 5), (3, 7)):
        x = randn(batch, tokens, 8, seed=batch)
        assert torch.equal(compiled(x), both(x))


def test_export_carries_the_operator():
    maps = maps_of(3, 8, 2)

    class Calibrate(torch.nn.Module):
        def forward(self, x, w):
            return calibrate(x, w, maps)[0]

    x, w = randn(2, 5, 8), weights(2, 3, 1)
    program = torch.export.export(Calibrate(), (x, w))
    assert any("imc_lite.calibrate" in str(n.target) for n in program.graph.nodes)
    assert torch.equal(program.module()(x, w), calibrate(x, w, maps)[0])
