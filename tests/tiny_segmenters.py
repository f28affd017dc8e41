"""SAM 2, SAM 3 and Grounding DINO of a few thousand random weights, made without a network."""

from pathlib import Path

import torch

WIDTH = 128  # SAM 2 splits object pointers by the 64 channels of its memory
SIZE = {"height": 64, "width": 64}
MEMORY = {
    "memory_attention_hidden_size": WIDTH,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": 16,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": WIDTH,
    "mask_downsampler_embed_dim": WIDTH,
    "memory_fuser_embed_dim": WIDTH,
    "memory_fuser_intermediate_dim": 16,
    "memory_fuser_num_layers": 1,
    "mask_decoder_config": {"hidden_size": WIDTH, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
}


def build_sam2() -> tuple:
    """Return a SAM 2 video model and its processor."""
    from transformers import (
        Sam2ImageProcessor,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoProcessor,
        Sam2VideoVideoProcessor,
    )

    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 1, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [],
        "window_positional_embedding_background_size": [2, 2],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": WIDTH,
    }
    prompts = {"hidden_size": WIDTH, "image_size": 64, "patch_size": 16}
    torch.manual_seed(0)
    config = Sam2VideoConfig(vision_config=vision, prompt_encoder_config=prompts, image_size=64, **MEMORY)
    pictures = Sam2ImageProcessor(size=SIZE, mask_size={"height": 16, "width": 16})
    return Sam2VideoModel(config).eval(), Sam2VideoProcessor(pictures, Sam2VideoVideoProcessor(size=SIZE))


def build_grounding_dino(folder: Path) -> tuple:
    """Return a detector and its processor; the vocabulary is written into `folder`."""
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "the", "red", "chair", "lamp"]
    (folder / "vocab.txt").write_text("\n".join(words))
    backbone = {
        "model_type": "swin",
        "image_size": 64,
        "window_size": 2,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 1, 1],
        "out_features": ["stage2", "stage3", "stage4"],
    }
    text = {
        "model_type": "bert",
        "vocab_size": len(words),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        num_queries=6,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        d_model=32,
        max_text_len=16,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
    )
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessor(size={"height": 128, "width": 128}),
        BertTokenizer(vocab=str(folder / "vocab.txt")),
    )
    return GroundingDinoForObjectDetection(config).eval(), processor


def build_sam3() -> tuple:
    """Return a SAM 3 video model that takes every detection, and its processor."""
    from transformers import (
        CLIPTokenizer,
        Sam2VideoVideoProcessor,
        Sam3ImageProcessor,
        Sam3VideoConfig,
        Sam3VideoModel,
        Sam3VideoProcessor,
    )

    tower = {
        "model_type": "sam3_vit_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "pretrain_image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    vision = {
        "model_type": "sam3_vision_model",
        "backbone_config": tower,
        "fpn_hidden_size": WIDTH,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    part = {"hidden_size": WIDTH, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {
        "model_type": "clip_text_model",
        "vocab_size": 54,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": WIDTH,
        "max_position_embeddings": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    detector = {
        "model_type": "sam3",
        "vision_config": vision,
        "text_config": text,
        "geometry_encoder_config": part,
        "detr_encoder_config": part,
        "detr_decoder_config": {**part, "num_queries": 6},
        "mask_decoder_config": {"hidden_size": WIDTH, "num_attention_heads": 2},
    }
    prompts = {"hidden_size": WIDTH, "image_size": 56, "patch_size": 14}
    tracker = {"model_type": "sam3_tracker_video", "vision_config": vision, "prompt_encoder_config": prompts, **MEMORY}
    torch.manual_seed(0)
    config = Sam3VideoConfig(
        detector_config=detector,
        tracker_config={**tracker, "image_size": 56},
        low_res_mask_size=16,
        score_threshold_detection=0.0,
        new_det_thresh=0.0,
        hotstart_delay=0,
    )
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    end = "<|endoftext|>"
    tokenizer = CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=[],
        bos_token=pieces[0],
        eos_token=end,
        unk_token=end,
        pad_token=end,
    )
    size = {"height": 56, "width": 56}
    processor = Sam3VideoProcessor(Sam3ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size), tokenizer)
    return Sam3VideoModel(config).eval(), processor
