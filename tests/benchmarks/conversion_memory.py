"""Measure the peak memory of conversion and restoration, beside the largest shard.

Run `python tests/benchmarks/conversion_memory.py`. It writes a synthetic 3D-IDE checkpoint (151,648 embedding rows, in
shards) into a temporary folder. Then it converts and restores the checkpoint, each in a process of its own. The memory
of Python and torch is measured before the work and subtracted. A tiny checkpoint is converted and restored first:
about 20 MB of torch's machine code enter the memory when they first run. Mapped pages count. Linux only.
"""

import argparse
import filecmp
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

logger = logging.getLogger(__name__)

ROWS, TOWER_LAYERS = 151_648, 2
# The kernel's record of the largest resident size; that of `resource` would begin with the parent's. Writing 5 to
# `clear_refs` sets the record to the present size. The models of Transformers are imported when they are first needed,
# so they are named here.
MEASURE = """
import re, sys, tempfile
from pathlib import Path
from transformers import AutoTokenizer, Qwen2Model, SiglipVisionModel
from modeling_ide3d.conversion.convert import convert_checkpoint
from modeling_ide3d.conversion.restore import restore_checkpoint

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])

kind, source, target, tiny = sys.argv[1:]
with tempfile.TemporaryDirectory() as name:
    convert_checkpoint(tiny, name + "/converted")
    restore_checkpoint(name + "/converted", name + "/restored")
Path("/proc/self/clear_refs").write_text("5")
before = peak()
{"convert": convert_checkpoint, "restore": restore_checkpoint}[kind](source, target)
sys.stdout.write(f"{before} {peak()}")
"""


def write_checkpoint(folder: Path, hidden_size: int, shards: int = 3, pickled: bool = False, rows: int = ROWS) -> int:
    """Write a bfloat16 checkpoint under the original names; return the bytes of its largest shard."""
    folder.mkdir()
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": TOWER_LAYERS + 1,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    config = {
        "model_type": "llava_qwen",
        "vocab_size": rows,
        "hidden_size": hidden_size,
        "intermediate_size": 4 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "mm_newline_position": "grid",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "synthetic",
        "oracle_vision_config": vision,
        "ground_head_type": "infonce",
        "ground_token_ids": [rows - 1],
        "skip_3d_pe_fusion": True,
        "use_depth_auxiliary_task": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    names = list(_list_shapes(config, vision).items())
    files, weight_map, largest = [names[number::shards] for number in range(shards)], {}, 0
    for number, part in enumerate(files, start=1):
        stem = f"{'pytorch_model' if pickled else 'model'}-{number:05d}-of-{shards:05d}"
        tensors = {name: torch.randn(shape, dtype=torch.bfloat16) for name, shape in part}
        path = folder / f"{stem}.{'bin' if pickled else 'safetensors'}"
        torch.save(tensors, path) if pickled else save_file(tensors, path, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, path.name))
        largest = max(largest, path.stat().st_size)
    index = folder / f"{'pytorch_model.bin' if pickled else 'model.safetensors'}.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return largest


def _list_shapes(config: dict, vision: dict) -> dict[str, tuple[int, ...]]:
    """List original names and shapes, with the two embeddings in different shards of three."""
    rows, hidden = config["vocab_size"], config["hidden_size"]
    inner, heads = config["intermediate_size"], config["num_key_value_heads"]
    small = heads * hidden // config["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (rows, hidden),
        "lm_head.weight": (rows, hidden),
    }
    shapes |= {"model.norm.weight": (hidden,), "model.image_newline": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        linear = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (small, hidden)}
        linear |= {"self_attn.v_proj": (small, hidden)}
        for name, shape in linear.items():
            shapes |= {f"model.layers.{layer}.{name}.weight": shape, f"model.layers.{layer}.{name}.bias": shape[:1]}
        plain = {
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
        }
        plain |= {
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in plain.items()}
    width, patch = vision["hidden_size"], vision["patch_size"]
    modules = {"model.mm_projector.0": (hidden, width), "model.mm_projector.2": (hidden, hidden)}
    modules |= {f"ground_head_{kind}.{i}": (hidden, hidden) for kind in ("query", "obj") for i in (0, 3)}
    modules |= {f"ground_head_{kind}.2": (hidden,) for kind in ("query", "obj")}
    modules |= {"model.proj_3d.0": (2 * hidden, hidden), "model.proj_3d.2": (2048, 2 * hidden)}
    tower = "model.vision_tower.vision_tower.vision_model."
    modules |= {f"{tower}embeddings.patch_embedding": (width, 3, patch, patch), f"{tower}post_layernorm": (width,)}
    for layer in range(TOWER_LAYERS):
        block = f"{tower}encoder.layers.{layer}."
        modules |= {f"{block}self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
        modules |= {f"{block}layer_norm{number}": (width,) for number in (1, 2)}
        modules |= {f"{block}mlp.fc1": (vision["intermediate_size"], width)}
        modules |= {f"{block}mlp.fc2": (width, vision["intermediate_size"])}
    for name, shape in modules.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    patches = (vision["image_size"] // patch) ** 2
    shapes |= {f"{tower}embeddings.position_embedding.weight": (patches, width)}
    return shapes | {"ground_head_zero_target": (hidden,), "empty_object_embedding": (hidden,)}


def measure(kind: str, source: Path, target: Path) -> tuple[int, int]:
    """Return the resident bytes before the work, and the peak of the work."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder, "tiny")
        write_checkpoint(tiny, hidden_size=64, pickled=any(source.glob("*.bin")), rows=1000)
        command = [sys.executable, "-c", MEASURE, kind, str(source), str(target), str(tiny)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(process.stderr)
    before, peak = map(int, process.stdout.split()[-2:])
    return before, peak


def count_equal_files(first: Path, second: Path) -> tuple[int, int]:
    """Count the files that came back: byte for byte, pickled ones tensor by tensor."""
    equal = 0
    for path in first.iterdir():
        if path.suffix == ".bin":
            before, after = (torch.load(folder / path.name, mmap=True) for folder in (first, second))
            same_names = list(before) == list(after)
            equal += same_names and all(torch.equal(before[name], after[name]) for name in before)
        else:
            equal += filecmp.cmp(path, second / path.name, shallow=False)
    return equal, len(list(first.iterdir()))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden-size", type=int, default=1024, help="a multiple of 64; 3584 is the size of the 7B")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for kind in (".safetensors", ".bin"):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            original, converted, restored = (Path(name, part) for part in ("original", "converted", "restored"))
            shard = write_checkpoint(original, options.hidden_size, pickled=kind == ".bin")
            logger.info(
                f"\n{kind:24}{'largest shard':>15}{'before':>10}{'peak':>10}{'added':>10}{'added / shard':>15}"
            )
            for step, source, target in (("convert", original, converted), ("restore", converted, restored)):
                before, peak = measure(step, source, target)
                figures = "".join(f"{value / 1e6:>7.0f} MB" for value in (before, peak, peak - before))
                logger.info(f"{step:24}{shard / 1e6:>12.0f} MB{figures}{(peak - before) / shard:>15.2f}")
            report = json.loads((converted / "conversion_report.json").read_text())
            fates = {
                fate: len(report[fate]) for fate in ("converted", "training_only", "dropped", "newly_initialized")
            }
            rows = f"{report['embedding_rows']} rows, {report['added_embedding_rows']} added"
            logger.info(f"report: {report['family']}, {rows}, weights {fates}")
            logger.info("files that came back: %d of %d", *count_equal_files(original, restored))


if __name__ == "__main__":
    main()
