import pytest
import torch

from dti_geom.errors import first_line, missing_memory, nearest_name


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("short"), "short"),
        (ValueError("first\nsecond\nthird"), "first"),
        (ValueError("\n  indented\r\nsecond"), "indented"),
        (ValueError("  \n "), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error: BaseException, expected: str) -> None:
    assert first_line(error) == expected


CARD = (
    "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 23.64 GiB of "
    "which 1.20 GiB is free. Process 1 has 22.00 GiB memory in use."
)
PROCESSOR = (
    "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "amounts"),
    [
        (torch.OutOfMemoryError(CARD), ["2.25 GiB", "23.64 GiB", "1.20 GiB"]),
        (RuntimeError(PROCESSOR), ["4.00 GiB"]),
        (MemoryError("Unable to allocate 7.45 GiB for an array with shape (1, 2)"), ["7.45 GiB"]),
        (MemoryError(), []),
    ],
)
def test_missing_memory_is_told_with_its_amounts(error: BaseException, amounts: list[str]) -> None:
    told = missing_memory(error)
    assert told
    assert all(amount in told for amount in amounts)


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert "GiB" in (missing_memory(caught.value) or "")


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("memory")])
def test_other_errors_are_not_about_memory(error: BaseException) -> None:
    assert missing_memory(error) is None


def test_the_nearest_name_is_found_in_any_case_and_no_far_one_is_proposed() -> None:
    assert nearest_name("DIT", ["ti", "dti"]) == " Did you mean 'dti'?"
    assert nearest_name("sdxl", ["mini", "SDXL"]) == " Did you mean 'SDXL'?"
    assert nearest_name("qqq", ["steps", "seeds"]) == ""
