"""Tests of loops of frameworks (transformers' Trainer, Lightning, accelerate): iterations, batches and counts."""

from __future__ import annotations

import pytest
from support.scripts import NewWorkplace, Workplace

from distprof.records import TRAINING, Counts, End, Record, Step
from distprof.shard.reader import Shard

pytestmark = [pytest.mark.stack("transformers", "accelerate", "lightning"), pytest.mark.slow]

#: Six optimizer steps of three micro-batches with two texts each, and an evaluation after every second step.
TRAINER = """
import os
import distprof
import torch
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

class Texts(Dataset):
    def __init__(self, number):
        self.number = number
    def __len__(self):
        return self.number
    def __getitem__(self, index):
        tokens = torch.full((8,), index % 64)
        return {"input_ids": tokens, "labels": tokens}

WINDOW = dict(warmup=1, timed=4)
CONFIG = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64, n_positions=16, bos_token_id=0, eos_token_id=0,
                    attn_implementation="eager", loss_type="ForCausalLM")
ARGUMENTS = dict(
    output_dir="trained", max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=3,
    eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=5, use_cpu=True, save_strategy="no",
    report_to="none", disable_tqdm=True)

def train_by_trainer(**more):
    model = GPT2LMHeadModel(CONFIG)
    Trainer(model, TrainingArguments(**ARGUMENTS, **more), train_dataset=Texts(72), eval_dataset=Texts(10)).train()

def train_on_rank(rank, port):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=port)
    with distprof.record(name="two", **WINDOW):
        train_by_trainer(ddp_backend="gloo")
    torch.distributed.destroy_process_group()

def micro_batch_by_torch():
    "MACs of a micro-batch's forward and backward, by FlopCounterMode."
    model, tokens, macs = GPT2LMHeadModel(CONFIG), torch.zeros(2, 8, dtype=torch.long), []
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=tokens, labels=tokens).loss
        macs.append(counter.get_total_flops() // 2)
        loss.backward()
    return macs[0], counter.get_total_flops() // 2 - macs[0]
"""
#: The Trainer on two ranks and on one, then six optimizer steps of two micro-batches of four by Lightning, of three of
#: four by accelerate.  The ranks are forks: to import it all is most of what such a process does.
LOOPS = """
import socket
import lightning
from accelerate import Accelerator
from torch import nn
from torch.multiprocessing import start_processes
from torch.utils.data import DataLoader, TensorDataset

with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
start_processes(train_on_rank, (port,), nprocs=2, start_method="fork")

def mlp():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))

def points(number, batch):
    return DataLoader(TensorDataset(torch.randn(number, 16)), batch)

class Task(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.head = mlp(), nn.Parameter(torch.randn(16, 4))
    def loss(self, batch):
        return (self.net(batch[0]) @ self.head).square().mean()
    def training_step(self, batch, index):
        return self.loss(batch)
    def validation_step(self, batch, index):
        self.log("loss", self.loss(batch))
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

print("by torch", *micro_batch_by_torch())
with distprof.record(name="trainer", **WINDOW):
    train_by_trainer()

quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
with distprof.record(name="lightning", **WINDOW):
    often = dict(max_epochs=1, accumulate_grad_batches=2, val_check_interval=4)
    fit = lightning.Trainer(accelerator="cpu", devices=1, **often, **quiet)
    fit.fit(Task(), points(48, 4), points(6, 3))

with distprof.record(name="accelerate", **WINDOW):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    model = mlp()
    model, optimizer, loader = accelerator.prepare(model, torch.optim.Adam(model.parameters()), points(72, 4))
    for (batch,) in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).square().mean())
            optimizer.step()
            optimizer.zero_grad()
"""
#: MACs of four points in the MLP: forward; backward, which needs no gradient of the points.
MLP, MLP_BACKWARD = 2 * 4 * 16 * 32, 3 * 4 * 16 * 32


@pytest.fixture(scope="module")
def place(new_workplace: NewWorkplace) -> Workplace:
    place = new_workplace().forking()
    place.write("loops.py", TRAINER + LOOPS, prelude="")
    return place


@pytest.fixture(scope="module")
def by_torch(place: Workplace) -> tuple[int, int]:
    """Runs all three loops; returns torch's MACs in a micro-batch of the Trainer, forward and backward."""
    done = place.start("python", "loops.py").wait()
    assert done.code == 0, done.err
    assert "stops recording" not in done.err
    (line,) = (line for line in done.out.splitlines() if line.startswith("by torch"))
    forward, backward = map(int, line.split()[2:])
    return forward, backward


def training(shard: Shard) -> list[Record]:
    """Returns its counted and its timed steps."""
    return [record for record in shard.records if isinstance(record, (Counts, Step)) and record.mode == TRAINING]


def work(shard: Shard) -> tuple[Counts, list[Step]]:
    records = training(shard)
    (counts,) = (record for record in records if isinstance(record, Counts))
    return counts, [record for record in records if isinstance(record, Step)]


def iterations(shard: Shard) -> int:
    """Returns the number of all iterations."""
    return next(record.iterations for record in reversed(shard.records) if isinstance(record, End))


def macs(counts: Counts) -> tuple[int, int]:
    """Returns the MACs of all modules, forward and backward."""
    return int(counts.forward_macs.sum()), int(counts.backward_macs.sum())


def batches(steps: list[Step]) -> list[tuple[int, int, int, int]]:
    """Returns for each step its number, its micro-batches, and the samples of one and of all."""
    return [(step.iteration, step.micro_batches, step.batch_size, step.samples) for step in steps]


def evaluated(steps: list[Step]) -> list[int]:
    """Returns the iterations with an evaluation."""
    return [step.iteration for step in steps if step.phases_ns["evaluation"]]


def test_the_trainer_of_transformers(place: Workplace, by_torch: tuple[int, int]) -> None:
    (shard,) = place.shards("trainer")
    counts, steps = work(shard)
    assert iterations(shard) == 6
    assert (counts.iteration, counts.micro_batches, counts.samples) == (1, 3, 6)
    assert macs(counts) == (3 * by_torch[0], 3 * by_torch[1])
    assert batches(steps) == [(iteration, 3, 2, 6) for iteration in (2, 3, 4, 5)]
    assert evaluated(steps) == [2, 4]  # after two steps, and after four: in the iteration that begins there


def test_lightning(place: Workplace, by_torch: tuple[int, int]) -> None:
    """Iterations are those of training, although Lightning has run a part of the evaluation before."""
    (shard,) = place.shards("lightning")
    counts, steps = work(shard)
    assert iterations(shard) == 6
    assert (counts.iteration, counts.micro_batches, counts.samples) == (1, 2, 8)
    assert macs(counts) == (2 * MLP, 2 * MLP_BACKWARD)
    assert batches(steps) == [(iteration, 2, 4, 8) for iteration in (2, 3, 4, 5)]
    assert evaluated(steps) == [2, 4]


def test_matmul_in_lightning_training_step(place: Workplace, by_torch: tuple[int, int]) -> None:
    """Both micro-batches have one; Lightning runs one of them within the optimizer's step."""
    (shard,) = place.shards("lightning")
    counts, _ = work(shard)
    head = 4 * 16 * 4
    assert counts.outside["backward_macs"] == 2 * 2 * head
    assert counts.outside["forward_macs"] == 2 * head
    (row,) = (row for row in place.report("lightning").work if row.where == "(outside modules)")
    assert row.backward_flops is not None and row.backward_flops >= 2 * counts.outside["backward_macs"]


def test_accelerate(place: Workplace, by_torch: tuple[int, int]) -> None:
    (shard,) = place.shards("accelerate")
    counts, steps = work(shard)
    assert iterations(shard) == 6
    assert (counts.iteration, counts.micro_batches, counts.samples) == (1, 3, 12)
    assert macs(counts) == (3 * MLP, 3 * MLP_BACKWARD)
    assert batches(steps) == [(iteration, 3, 4, 12) for iteration in (2, 3, 4, 5)]
    assert evaluated(steps) == []


def test_the_trainer_on_two_ranks(place: Workplace, by_torch: tuple[int, int]) -> None:
    """Each rank has 36 of the 72 texts in an epoch, 18 micro-batches: six steps."""
    shards = place.shards("two")
    assert [shard.header.rank for shard in shards] == [0, 1]
    for shard in shards:
        counts, steps = work(shard)
        assert macs(counts) == (3 * by_torch[0], 3 * by_torch[1])
        assert batches(steps) == [(iteration, 3, 2, 6) for iteration in (2, 3, 4, 5)]
        assert evaluated(steps) == [2, 4]
    summary = place.report("two").summary
    assert (summary.batch_size_per_rank, summary.micro_batches, summary.samples_per_iteration) == (2, 3, 12)
    assert summary.params_exact == 64 * 32 + 16 * 32 + 2 * (12 * 32**2 + 13 * 32) + 2 * 32  # the head is tied
