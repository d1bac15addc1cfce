"""Data sheets of accelerators, and the time of a kernel by them."""

import pytest

from archlab.accelerators import accelerator, accelerator_of, accelerators
from archlab.errors import ArchlabError


def test_a_kernel_takes_the_longest_of_its_three_times():
    card = accelerator("h100")
    assert card.seconds(8, 8, is_half=True) == 2.2e-6
    assert card.seconds(8, 8, is_half=True, least=7.5e-6) == 7.5e-6
    assert card.seconds(3.35e12, 0, is_half=True) == pytest.approx(1 / 0.85)
    assert card.seconds(3.35e7, 0, is_half=True) == pytest.approx(1e-5 / 0.85 / 2)  # from the cache
    assert card.seconds(0, 989.4e12, is_half=True) == pytest.approx(1 / 0.6)
    assert card.seconds(0, 989.4e12, is_half=False) == pytest.approx(989.4 / 66.9 / 0.6)


def test_cards_are_found_by_their_drivers_names():
    assert accelerator_of("NVIDIA H200") == accelerators()["h200"]
    assert accelerator_of("NVIDIA H100 PCIe") is None


def test_an_unknown_accelerator_is_refused():
    with pytest.raises(ArchlabError, match=r"^unknown accelerator 'h10': did you mean 'h100'\?$"):
        accelerator("h10")
