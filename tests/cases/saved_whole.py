"""Every step the script pickles the whole model, copies it deeply, averages weights into the copy, and loads it back
(pytorch#1148, DeepSpeed#5432, Torch-Pruning#374).
"""

# ranks: 1
# arguments:
import copy
import io

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

torch.manual_seed(0)
shared = nn.Linear(8, 8)
model = nn.Sequential(shared, nn.ReLU(), shared, nn.BatchNorm1d(8), nn.Linear(8, 2))
average = AveragedModel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for step in range(12):
    loss = model(torch.randn(6, 8)).square().mean()
    loss.backward()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    twin = copy.deepcopy(model)
    average.update_parameters(model)
    keys = sorted(twin.__dict__), sorted(twin[0].__dict__), len(twin[0]._forward_hooks), len(twin[0]._forward_pre_hooks)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    x = torch.randn(3, 8)
    same = torch.equal(again(x), twin(x))
    optimizer.step()
    optimizer.zero_grad()
    print(step, loss.item(), same, len(buffer.getvalue()), keys, average(x).sum().item())
