"""Matching: pooling, broken rows, what is refused, and compilers."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from imc_lite.kernels.match import WhitenedPrototypes, match, match_stats, reference  # noqa: E402
from imc_lite.kernels.match.spec import MATCH  # noqa: E402
from imc_lite.kernels.match.triton import match_triton  # noqa: E402
from kernel_cases import DEVICE, DTYPES, assert_near, error, poisoned, randn  # noqa: E402, F401

from imc_lite.errors import ImcError  # noqa: E402


def whitened(size, prototypes, rank, **changed):
    given = {
        "mean": randn(size, seed=1),
        "whiten": randn(size, rank, seed=2, scale=size**-0.5),
        "prototypes": randn(prototypes, rank, seed=3),
        "bias": randn(prototypes, seed=4),
        "precision": randn(size, seed=5).abs(),
        "reconstruct": randn(rank, size, seed=6),
    }
    return WhitenedPrototypes.build(**{**given, **changed}, device=DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", MATCH.odd_shapes)
def test_probabilities_add_up_to_one(shape, dtype):
    found = match_triton(*MATCH.inputs(shape, dtype, DEVICE, 0))
    assert torch.allclose(found[1].sum(1), torch.ones(shape.batch, device=DEVICE))


def test_pooling_keeps_the_digits_of_an_outlying_channel():
    hidden = randn(1, 1, 200, 4) + torch.tensor([0.0, 1e4, -1e4, 0.0], device=DEVICE)
    tensors = whitened(8, 3, 2).tensors()
    assert_near(match_triton(hidden, *tensors), reference.match(hidden, *tensors), 1e-5)
    wanted = hidden.double()[0, 0].std(0, correction=0).log1p()
    assert error(reference.pool(hidden)[0, 4:], wanted) < 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_row_is_reported_and_the_others_are_spared(value):
    prototypes, hidden = whitened(2 * 2 * 33, 6, 5), randn(3, 2, 19, 33)
    whole = match_triton(hidden, *prototypes.tensors())
    hidden[1, 1, 18, 32] = value
    found = match_triton(hidden, *prototypes.tensors())
    assert found[3].tolist() == [False, True, False]
    assert found[0][1].abs().max() == 0
    assert found[2][1] == torch.finfo(torch.float32).max
    assert_near([t[[0, 2]] for t in found], [t[[0, 2]] for t in whole], 1e-5)
    assert_near(found, reference.match(hidden, *prototypes.tensors()), 1e-5)
    with pytest.raises(ImcError, match=r"row \[1\]"):
        match(hidden, prototypes, check=True)


def test_every_second_layer_is_read_in_place():
    hidden = randn(5, 9, 2, 16).permute(2, 3, 0, 1)[:, ::4]
    tensors = whitened(2 * 4 * 9, 4, 3).tensors()
    assert_near(match_triton(hidden, *tensors), reference.match(hidden, *tensors), 1e-5)


def test_wrong_input_is_refused_in_one_line():
    prototypes = whitened(16, 2, 2)
    fields = dict(zip(WhitenedPrototypes.__dataclass_fields__, prototypes.tensors(), strict=True))
    cases = [
        (lambda: match(randn(1, 1, 4, 9), prototypes), "18 channels"),
        (lambda: match(randn(1, 1, 4, 8, dtype=torch.float64), prototypes), "float64"),
        (lambda: match_stats(randn(1, 15), prototypes), "15 channels"),
        (lambda: match_stats(randn(16), prototypes), "2 dimensions"),
        (lambda: whitened(16, 65, 2), "65"),
        (lambda: whitened(16, 2, 129), "129"),
        (lambda: whitened(16, 2, 2, bias=randn(3)), r"bias is \[3\], wanted \[2\]"),
        (lambda: whitened(16, 2, 2, whiten=randn(16)), r"whiten is \[16\], wanted \[16, R\]"),
        (lambda: whitened(16, 2, 2, precision=-randn(16).abs()), "negative"),
        (lambda: whitened(16, 2, 2, mean=randn(16) * float("nan")), "mean holds a NaN"),
        # Made without `build`, they are checked no less.
        (lambda: WhitenedPrototypes(**{**fields, "gram": fields["gram"].float()}), "gram is float32"),
        (lambda: WhitenedPrototypes(**{**fields, "cross": randn(2, 16).T}), "cross .*contiguous"),
        (lambda: WhitenedPrototypes(**{**fields, "prototypes": randn(2, 3)}), r"\[2, 3\], wanted \[K, 2\]"),
        (lambda: WhitenedPrototypes(**{**fields, "bias": randn(2) / 0}), "bias holds a NaN or Inf"),
    ]
    for call, text in cases:
        with pytest.raises(ImcError, match=text) as caught:
            call()
        assert "\n" not in str(caught.value)
