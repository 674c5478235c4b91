"""A table with sparse gradients, as recommenders have them: an update touches the rows that were looked up."""
# ranks: 1

import torch
from torch import nn

torch.manual_seed(0)
net = nn.EmbeddingBag(1000, 16, mode="sum", sparse=True)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _step in range(20):
    loss = net(torch.randint(1000, (32, 5))).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print("loss", loss.item())
