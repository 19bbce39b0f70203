import pytest
import torch

from tools.starter.autoencoder import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(8, 8), (4, 20), (20, 4)])
def test_an_orthogonalized_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_steps_lower_a_loss_over_convolution_weights() -> None:
    torch.manual_seed(0)
    convolution, wanted = torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.Conv2d(3, 8, 3, bias=False)
    images = torch.randn(4, 3, 8, 8)
    target = wanted(images).detach()
    muon = Muon(convolution.parameters(), rate=0.02)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.mse_loss(convolution(images), target)
        loss.backward()
        muon.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert convolution.weight.grad is None
