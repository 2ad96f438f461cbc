from __future__ import annotations

import pytest
import torch

from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.core.media.sample import sample_input
from sr_deploy.run.torch import TorchRunner
from tests.small_network import small_network


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu():
    with pytest.raises(EnvironmentFault, match="PyTorch sees no GPU"):
        TorchRunner(small_network(), "cuda")


class Hungry(torch.nn.Module):
    def forward(self, lr):
        return torch.empty(1 << 60)


class Faulty(torch.nn.Module):
    def forward(self, lr):
        return lr.view(7, 7)


def test_memory_and_other_faults_are_told_apart():
    for network, error in ((Hungry(), EnvironmentFault), (Faulty(), RuntimeError)):
        runner = TorchRunner(network)
        runner.prepare((4, 4))
        runner.upload(sample_input((4, 4), 1.0))
        with pytest.raises(error) as caught:
            runner.compute()
        assert type(caught.value) is error


def test_no_graph_of_gradients_is_kept():
    runner = TorchRunner(small_network())
    runner.prepare((4, 4))
    runner.upload(sample_input((4, 4), 1.0))
    runner.compute()
    assert not runner._sr.requires_grad
