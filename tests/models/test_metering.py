import torch

from dti_geom.models.metering import flops_of, metered

MIB = 1 << 20


def floats(mib: int) -> torch.Tensor:
    return torch.empty(mib * MIB // 4, device="meta")


def test_the_peak_is_what_is_alive_at_once() -> None:
    x = floats(8)  # made before: counts nothing
    with metered() as meter:
        y = x + 1
        z = y * y
        del y
        z = z + 1
    assert meter.peak == 16 * MIB
    assert meter.live == 8 * MIB
    assert meter.largest == 8 * MIB


def test_views_and_changes_in_place_use_no_memory() -> None:
    x = floats(8)
    with metered() as meter:
        y = x.view(2, -1)[0].add_(1)
        y.t()
    assert meter.peak == 0


def test_a_square_saves_its_input_for_the_backward_pass_and_a_sum_does_not() -> None:
    x = floats(4).requires_grad_()
    with metered() as meter:
        loss = (x + 1).square().sum()
        assert meter.live == 4 * MIB + 4  # x + 1, and the sum
        loss.backward()
        assert meter.peak >= 8 * MIB  # with the gradient


def test_attention_is_counted_without_its_matrix_of_weights() -> None:
    length, width = 2048, 64
    query = torch.empty(1, 1, length, width, device="meta", requires_grad=True)
    key = torch.empty(1, 1, length, width, device="meta")
    mask = torch.ones(1, 1, 1, length, dtype=torch.bool, device="meta")

    def attend() -> None:
        attention = torch.nn.functional.scaled_dot_product_attention
        attention(query, key, key, attn_mask=mask).sum().backward()

    with metered() as meter:
        attend()
    assert meter.peak < length * length * 4 / 2
    # Forward: two products. Backward: those, and one more for each input and the weights.
    product = 2 * length * length * width
    assert flops_of(attend) in (6 * product, 7 * product)


def test_a_product_costs_two_operations_per_multiply_and_add() -> None:
    a, b = torch.empty(3, 5, device="meta"), torch.empty(5, 7, device="meta")
    assert flops_of(lambda: a @ b) == 2 * 3 * 5 * 7
