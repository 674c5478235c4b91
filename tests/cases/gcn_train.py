"""A graph convolution: its products with the sparse adjacency matrix compute with the stored elements only."""
# ranks: 1

import warnings

import torch
from torch import Tensor, nn

NODES, FEATURES, HIDDEN, CLASSES, EDGES = 2000, 32, 16, 4, 8000

torch.manual_seed(0)
warnings.filterwarnings("ignore", message="Sparse")
edges = torch.sparse_coo_tensor(torch.randint(0, NODES, (2, EDGES)), torch.ones(EDGES), (NODES, NODES))
adjacency = edges.coalesce().to_sparse_csr()


class GraphConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, HIDDEN, bias=False)
        self.second = nn.Linear(HIDDEN, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = adjacency @ self.second(torch.relu(adjacency @ self.first(x)))
        return output


model = GraphConvolution()
optimizer = torch.optim.Adam(model.parameters())
x = torch.randn(NODES, FEATURES)
print("stored elements", adjacency.values().numel())
for _step in range(20):
    loss = model(x).pow(2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print("loss", loss.item())
