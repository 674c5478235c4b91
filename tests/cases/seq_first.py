"""nn.LSTM takes (sequence, batch, ...) by default: the model is given batches of 20 samples that are 35 long."""
# ranks: 1

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn, self.head = nn.Embedding(100, 32), nn.LSTM(32, 32), nn.Linear(32, 100)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.rnn(self.embedding(tokens))[0])
        return output


torch.manual_seed(0)
net = Model()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _step in range(20):
    net(torch.randint(100, (35, 20))).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
