"""Train with geometry supervision: RGB-D video with poses, a teacher and questions in, an RGB-only model out.

    python examples/train.py examples/recipes/rooms_nano.yaml
    python examples/train.py examples/recipes/rooms_nano.yaml --max_steps 50 --output_dir outputs/try
    python examples/train.py examples/recipes/ide3d_7b.yaml --dry-run

`torchrun` and `accelerate launch` start it in several processes; `--dry-run` needs no data and no weights.
A folder that holds a checkpoint is resumed. The export lies in `output_dir/export`.
"""

from trainer.recipes.run import main

if __name__ == "__main__":
    main()
