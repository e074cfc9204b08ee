"""Which errors mean that another process is gone."""

import pytest
import torch.distributed as dist

from fewlabels.processes import is_lost


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (dist.DistBackendError("timed out"), True),
        (RuntimeError("[/torch/third_party/gloo/gloo/transport/tcp/pair.cc:547] closed by peer"), True),
        (RuntimeError("Connection reset by peer"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_an_exchange_that_failed_is_told_from_any_other_error(error, lost):
    assert is_lost(error) is lost
