"""Batch norms are found whatever their dimensions, and nothing else is taken for one."""

from timm.layers import BatchNormAct2d
from torch import nn

from fewlabels.averaging.batch_norm import batch_norms, set_batch_norm_memory


def test_every_batch_norm_is_found_and_no_other_norm():
    found = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2), BatchNormAct2d(2)]
    module = nn.Sequential(*found, nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.InstanceNorm2d(2, track_running_stats=True))
    assert batch_norms(module) == found


def test_running_statistics_remember_as_many_steps():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.GroupNorm(1, 3))
    set_batch_norm_memory(module, 50)
    assert module[0].momentum == 0.02
