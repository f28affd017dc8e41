"""Ask an exported 3D-IDE model about a video of your own: an .mp4 or a folder of images, plain RGB.

python examples/ask_video.py examples/checkpoints/ide3d-nano-rooms room.mp4 "Is there a red chair?"
"""

import argparse
import sys

from transformers.utils import logging

from trainer.session import open_video


def main() -> None:
    """Parse the command line, answer on stdout, say on stderr what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="folder of an export, or a name on the Hub")
    parser.add_argument("video", metavar="VIDEO", help="video file, or folder of images in natural order")
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--num-frames", type=int, help="frames to take, default: what the model was trained with")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--device", default="auto", help='"auto", "cpu", "cuda", ... (default: auto)')
    args = parser.parse_args()
    logging.disable_progress_bar()
    try:
        scene = open_video(args.model, args.video, num_frames=args.num_frames, device=args.device)
        answer = scene.ask([args.question], max_new_tokens=args.max_new_tokens)[0]
    except (OSError, ValueError) as error:
        sys.exit(f"ask_video: {error}")
    sys.stdout.write(answer + "\n")


if __name__ == "__main__":
    main()
