"""What the answers of a training step cost when their logits are computed a chunk at a time, `loss_chunk_size`.

    PYTHONPATH=. python tests/benchmarks/chunked_loss.py [--tokens 2048] [--hidden_size 896] [--vocab_size 151647]

Head and loss alone, forward and backward, in float32 on one thread; by default with the sizes of Qwen2-0.5B. Printed
as JSON: for each chunk size the processor's time by that of all tokens at once (0), and the peak of the tensors beside
the head, its gradient included.
"""

import argparse
import json
import sys
import time

import torch
from step_cost import measure_peak
from torch import nn
from tqdm import tqdm
from transformers.loss.loss_utils import ForCausalLMLoss

from modeling_ide3d.auxiliary.chunked_loss import chunk_loss

CHUNKS = (0, 512, 128)


def measure(num_tokens: int, hidden_size: int, vocab_size: int, repeats: int) -> dict:
    """All chunk sizes in turn, `repeats` times."""
    torch.manual_seed(0)
    head = nn.Linear(hidden_size, vocab_size, bias=False)
    states = torch.randn(1, num_tokens, hidden_size, requires_grad=True)
    following = torch.randint(0, vocab_size, (1, num_tokens))

    def step(chunk_size: int) -> torch.Tensor:
        head.weight.grad = states.grad = None
        if chunk_size:
            loss = chunk_loss(head, ForCausalLMLoss, states, following, chunk_size)
        else:
            loss = ForCausalLMLoss(head(states), None, vocab_size, shift_labels=following)
        loss.backward()
        return head.weight.grad

    seconds, differences, expected = dict.fromkeys(CHUNKS, 0.0), {}, None
    step(CHUNKS[-1])  # what a first call sets up is paid by none
    for _ in tqdm(range(repeats), desc="Repeats", disable=None):
        for chunk_size in CHUNKS:
            start = time.process_time()
            gradient = step(chunk_size)
            seconds[chunk_size] += time.process_time() - start
            expected = gradient.clone() if expected is None else expected
            differences[chunk_size] = float((gradient - expected).norm() / expected.norm())
    peaks = {chunk_size: measure_peak(lambda: step(chunk_size)) for chunk_size in CHUNKS}  # noqa: B023
    return {
        "tokens": num_tokens,
        "time_ratio": {chunk_size: seconds[chunk_size] / seconds[0] for chunk_size in CHUNKS},
        "peak_ratio": {chunk_size: peaks[chunk_size] / peaks[0] for chunk_size in CHUNKS},
        "peak_mb": peaks,
        "relative_difference_of_gradients": differences,
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden_size", type=int, default=896)
    parser.add_argument("--vocab_size", type=int, default=151647)
    parser.add_argument("--repeats", type=int, default=1)
    words = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(words.tokens, words.hidden_size, words.vocab_size, words.repeats)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
