"""Train allocated ranks in plain PEFT: train_with_ranks.py MODEL ALLOCATION TRAIN.parquet ADAPTER."""

import sys

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

base, allocation, train, adapter = sys.argv[1:]
model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig.from_pretrained(allocation))
optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=3e-3)
for prompt, answer in pd.read_parquet(train)[["clean_ids", "answer_ids"]].to_numpy():
    tokens = torch.tensor([[*prompt, *answer]])
    labels = torch.tensor([[*[-100] * len(prompt), *answer]])  # the loss is on the answer alone
    model(input_ids=tokens, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained(adapter)
