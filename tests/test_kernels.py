"""The Triton kernels against their PyTorch reference and float64: on a GPU where there is one, else interpreted."""

import os

import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

from imc_lite.kernels import ops, reference  # noqa: E402
from imc_lite.kernels.banks import CalibrationBank, MatchBank  # noqa: E402
from imc_lite.kernels.calibrate import calibrate_triton  # noqa: E402
from imc_lite.kernels.match import match_triton  # noqa: E402

from imc_lite.errors import ImcError  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Relative root mean square error.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 5e-3}
DTYPES = [
    torch.float32,
    torch.float16,
    pytest.param(
        torch.bfloat16, marks=pytest.mark.skipif(INTERPRETED, reason="Triton's interpreter has no bfloat16 arithmetic")
    ),
]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fresh memory holds NaN, so that an output the kernel forgets is seen."""
    new_empty, empty_like = torch.Tensor.new_empty, torch.empty_like

    def poison(tensor):
        return tensor.fill_(float("nan") if tensor.is_floating_point() else 1)

    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *a, **k: poison(new_empty(self, *a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poison(empty_like(*a, **k)))


def randn(*shape, seed=0, dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(DEVICE, dtype)


def match_bank(size, prototypes, rank):
    return MatchBank.build(
        randn(size, seed=1),
        randn(size, rank, seed=2, scale=size**-0.5),
        randn(prototypes, rank, seed=3),
        randn(prototypes, seed=4),
        randn(size, seed=5).abs(),
        randn(rank, size, seed=6),
        device=DEVICE,
    )


def calibration_bank(prototypes, width, rank, dtype=torch.float32):
    return CalibrationBank.build(
        randn(prototypes, width, seed=7),
        randn(prototypes, width, seed=8),
        randn(prototypes, width, rank, seed=9, scale=width**-0.5),
        randn(prototypes, rank, width, seed=10, scale=rank**-0.5),
        dtype=dtype,
        device=DEVICE,
    )


def weights(batch, prototypes, active):
    """float32 [B, K] with `active` positive entries a row, at different places."""
    table = torch.zeros(batch, prototypes)
    for b in range(batch):
        for j in range(active):
            table[b, (3 * b + 2 * j) % prototypes] = 0.3 + 0.5 * j
    return table.to(DEVICE)


def error(found, wanted):
    found, wanted = found.double(), wanted.double()
    return float(((found - wanted).square().mean() / wanted.square().mean().clamp_min(1e-30)).sqrt())


def exact(x, w, bank):
    """`reference.calibrate` in float64, nothing rounded."""
    down, up, offset, shift = (t.double() for t in ops.tensors(bank))
    out = x.double()
    for k in range(w.shape[1]):
        step = (x.double() @ down[k] - offset[k]) @ up[k] + shift[k]
        out = out + w[:, k, None, None].double() * step
    return out


def assert_same_match(found, wanted):
    for f, w in zip(found[:3], wanted[:3], strict=True):
        assert error(f, w) < 1e-5
    assert torch.equal(found[3], wanted[3])


@pytest.mark.parametrize(("batch", "size", "prototypes", "rank"), [(1, 1, 1, 1), (3, 257, 36, 35), (2, 130, 64, 128)])
def test_match_of_statistics(batch, size, prototypes, rank):
    bank, stats = match_bank(size, prototypes, rank), randn(batch, size)
    assert_same_match(match_triton(stats, *ops.tensors(bank)), reference.match_stats(stats, *ops.tensors(bank)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "layers", "tokens", "width", "prototypes", "rank"),
    [(1, 1, 1, 1, 2, 1), (2, 3, 17, 65, 5, 7), (1, 2, 257, 96, 36, 20), (1, 1, 300, 64, 8, 5)],
)
def test_match_of_tokens(batch, layers, tokens, width, prototypes, rank, dtype):
    bank = match_bank(2 * layers * width, prototypes, rank)
    hidden = randn(batch, layers, tokens, width, dtype=dtype, scale=3)
    found = match_triton(hidden, *ops.tensors(bank))
    assert_same_match(found, reference.match(hidden, *ops.tensors(bank)))
    assert torch.allclose(found[1].sum(1), torch.ones(batch, device=DEVICE))


def test_pooling_keeps_the_digits_of_an_outlying_channel():
    hidden = randn(1, 1, 200, 4) + torch.tensor([0.0, 1e4, -1e4, 0.0], device=DEVICE)
    bank = match_bank(8, 3, 2)
    assert_same_match(match_triton(hidden, *ops.tensors(bank)), reference.match(hidden, *ops.tensors(bank)))
    wanted = hidden.double()[0, 0].std(0, correction=0).log1p()
    assert error(reference.pool(hidden)[0, 4:], wanted) < 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_match_reports_a_broken_row_and_spares_the_others(value):
    bank, hidden = match_bank(2 * 2 * 33, 6, 5), randn(3, 2, 19, 33)
    whole = match_triton(hidden, *ops.tensors(bank))
    hidden[1, 1, 18, 32] = value
    found = match_triton(hidden, *ops.tensors(bank))
    assert found[3].tolist() == [False, True, False]
    assert found[0][1].abs().max() == 0
    assert found[2][1] == torch.finfo(torch.float32).max
    assert_same_match([t[[0, 2]] for t in found], [t[[0, 2]] for t in whole])
    assert_same_match(found, reference.match(hidden, *ops.tensors(bank)))
    with pytest.raises(ImcError, match=r"row \[1\]"):
        ops.match(hidden, bank, check=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("active", [1, 2, 3])
@pytest.mark.parametrize(
    ("batch", "tokens", "width", "rank", "prototypes"),
    [(1, 1, 1, 1, 3), (2, 17, 129, 9, 5), (1, 33, 257, 64, 36), (1, 5, 70, 128, 4)],
)
def test_calibrate(batch, tokens, width, rank, prototypes, active, dtype):
    bank = calibration_bank(prototypes, width, rank, dtype)
    x, w = randn(batch, tokens, width, dtype=dtype), weights(batch, prototypes, active)
    found, bad = calibrate_triton(x, w, *ops.tensors(bank))
    assert error(found, exact(x, w, bank)) < TOLERANCE[dtype]
    assert error(reference.calibrate(x, w, *ops.tensors(bank))[0], exact(x, w, bank)) < TOLERANCE[dtype]
    assert not bad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_without_weight_every_bit_is_copied(dtype):
    bank = calibration_bank(4, 66, 8, dtype)
    x = randn(2, 9, 66, dtype=dtype)
    x[0, 0, 0], x[0, 1, 1], x[0, 2, 2] = -0.0, float("nan"), torch.finfo(dtype).smallest_normal / 2
    w = torch.zeros(2, 4, device=DEVICE)
    w[1, 2] = 1.0
    for found, bad in (calibrate_triton(x, w, *ops.tensors(bank)), reference.calibrate(x, w, *ops.tensors(bank))):
        assert torch.equal(found[0].view(torch.uint8), x[0].view(torch.uint8))
        assert not torch.equal(found[1], x[1])
        assert bad.nonzero().tolist() == [[0, 1]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("active", [1, 2, 3])
def test_a_broken_token_is_reported_copied_and_kept_to_itself(dtype, active):
    bank = calibration_bank(5, 40, 6, dtype)
    x, w = randn(1, 20, 40, dtype=dtype), weights(1, 5, active)
    whole, _ = calibrate_triton(x, w, *ops.tensors(bank))
    x[0, 3, 39] = float("inf")
    found, bad = calibrate_triton(x, w, *ops.tensors(bank))
    assert bad.nonzero().tolist() == [[0, 3]]
    assert torch.equal(found[0, 3], x[0, 3])
    rest = [i for i in range(20) if i != 3]
    assert torch.equal(found[0, rest], whole[0, rest])
    with pytest.raises(ImcError, match="NaN or Inf"):
        ops.calibrate(x, w, bank, check=True)


def test_strided_inputs_are_read_in_place():
    bank, width = calibration_bank(3, 24, 4), 24
    wide = randn(2, 7, 2 * width)
    turned = randn(width, 7, 2).permute(2, 1, 0)
    w = weights(2, 6, 1)[:, ::2]
    for x in (wide[..., ::2], wide[..., width:], turned, wide[:1, :, :width].expand(2, 7, width)):
        found, _ = calibrate_triton(x, w, *ops.tensors(bank))
        assert found.is_contiguous()
        assert error(found, exact(x, w, bank)) < 1e-5
    hidden = randn(5, 9, 2, 16).permute(2, 3, 0, 1)[:, ::4]
    other = match_bank(2 * 4 * 9, 4, 3)
    assert_same_match(match_triton(hidden, *ops.tensors(other)), reference.match(hidden, *ops.tensors(other)))


def test_half_precision_factors_of_any_scale_stay_in_range():
    bank = CalibrationBank.build(
        randn(1, 50, seed=1),
        randn(1, 50, seed=2),
        randn(1, 50, 8, seed=3, scale=2e5),
        randn(1, 8, 50, seed=4, scale=1e-7),
        dtype=torch.float16,
        device=DEVICE,
    )
    x, w = randn(1, 11, 50, dtype=torch.float16), torch.ones(1, 1, device=DEVICE)
    found, _ = calibrate_triton(x, w, *ops.tensors(bank))
    assert error(found, exact(x, w, bank)) < TOLERANCE[torch.float16]


def test_wrong_input_is_refused_in_one_line():
    bank, x, w = calibration_bank(3, 8, 2), randn(1, 4, 8), torch.ones(1, 3, device=DEVICE)
    cases = [
        (lambda: ops.calibrate(x.clone().requires_grad_(), w, bank), "no_grad"),
        (lambda: ops.calibrate(x.half(), w, bank), "float16"),
        (lambda: ops.calibrate(x[..., :7], w, bank), "7 channels"),
        (lambda: ops.calibrate(x[0], w, bank), "3 dimensions"),
        (lambda: ops.calibrate(x, w[:, :2], bank), "weights"),
        (lambda: ops.calibrate(x[:, :0], w, bank), "empty"),
        (lambda: ops.match(randn(1, 1, 4, 9), match_bank(16, 2, 2)), "18 channels"),
        (lambda: calibration_bank(65, 4, 2), "65"),
        (lambda: calibration_bank(2, 4, 129), "129"),
        (lambda: calibration_bank(2, 4097, 1), "4097"),
    ]
    for call, text in cases:
        with pytest.raises(ImcError, match=text) as caught:
            call()
        assert "\n" not in str(caught.value)
    with torch.no_grad():
        ops.calibrate(x.clone().requires_grad_(), w, bank)


def test_operators_pass_opcheck():
    bank, other = calibration_bank(3, 8, 2), match_bank(2 * 2 * 8, 4, 3)
    arguments = {
        torch.ops.imc_lite.calibrate: (randn(2, 5, 8), weights(2, 3, 1), *ops.tensors(bank)),
        torch.ops.imc_lite.match: (randn(2, 2, 5, 8), *ops.tensors(other)),
        torch.ops.imc_lite.match_stats: (randn(2, 32), *ops.tensors(other)),
    }
    for operator, given in arguments.items():
        torch.library.opcheck(operator.default, given)


def test_compile_sees_one_graph_at_two_sizes():
    bank, other = calibration_bank(3, 8, 2), match_bank(16, 4, 3)

    def both(x):
        return ops.calibrate(x, ops.match(x[:, None], other).probabilities[:, :3].contiguous(), bank)[0]

    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, tokens in ((2, 5), (3, 7)):
        x = randn(batch, tokens, 8, seed=batch)
        assert torch.equal(compiled(x), both(x))


def test_export_carries_the_operators():
    bank = calibration_bank(3, 8, 2)

    class Calibrate(torch.nn.Module):
        def forward(self, x, w):
            return ops.calibrate(x, w, bank)[0]

    x, w = randn(2, 5, 8), weights(2, 3, 1)
    program = torch.export.export(Calibrate(), (x, w))
    assert any("imc_lite.calibrate" in str(n.target) for n in program.graph.nodes)
    assert torch.equal(program.module()(x, w), ops.calibrate(x, w, bank)[0])
