"""Names of the weights of original checkpoints, their families, and the fate of each weight."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from modeling_ide3d.conversion.weights import StoredTensor

__all__ = [
    "ConversionReport",
    "assign_weights",
    "check_position_encoding",
    "identify_family",
    "rename_key",
    "shorten",
]

TRAINING_ONLY_FILE = "training_only/original_geometry_modules.safetensors"
REPORT_FILE = "conversion_report.json"
INPUT_EMBEDDING, OUTPUT_EMBEDDING = "model.language_model.embed_tokens.weight", "lm_head.weight"
EMBEDDINGS = (INPUT_EMBEDDING, OUTPUT_EMBEDDING)  # one row for each token
ORIGINAL_EMBEDDING = "model.embed_tokens.weight"
ORIGINAL_TOWER = "model.vision_tower.vision_tower."
EMPTY_REGION = "grounding_head.empty_region"
NAMES_IN_ERRORS = 8  # a checkpoint of another model has hundreds of wrong names

IDE, WORLD_POSITIONS, LLAVA_VIDEO = "3D-IDE", "Video-3D-LLM or 3DRS", "LLaVA-Video-Qwen2"
# Rows of the released 7B checkpoints. The tokenizer has 151,647 tokens; Video-3D-LLM adds two rows and 3D-IDE one.
FAMILY_OF_ROWS = {152_064: LLAVA_VIDEO, 151_649: WORLD_POSITIONS, 151_648: IDE}

_TOWER = r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?"
RENAMES = [
    (_TOWER + r"((?:embeddings|encoder|post_layernorm)\..+)", r"model.vision_tower.\1"),
    (r"model\.mm_projector\.0\.(weight|bias)", r"model.multi_modal_projector.linear_1.\1"),
    (r"model\.mm_projector\.2\.(weight|bias)", r"model.multi_modal_projector.linear_2.\1"),
    (r"model\.((?:embed_tokens|layers|norm)\..+)", r"model.language_model.\1"),
    (r"model\.image_newline", "model.image_newline"),
    (r"lm_head\.weight", "lm_head.weight"),
    (r"ground_head_query\.([023]\.(?:weight|bias))", r"grounding_head.query_proj.\1"),
    (r"ground_head_obj\.([023]\.(?:weight|bias))", r"grounding_head.key_proj.\1"),
    (r"ground_head_zero_target", "grounding_head.no_object"),
    (r"empty_object_embedding", "grounding_head.empty_region"),
]
# Trained beside the model and never used to answer. The last three belong to 3DRS.
TRAINING_ONLY = (
    r"model\.(?:dpt_module\..+|proj_3d\.[02]\.(?:weight|bias)|(?:corres_linear|geometric_linear|linear_dc)\.weight)"
)
_POSITION_ENCODING = r"model\.world_position_embedding\..+"
DROPPED = {
    _TOWER + r"head\.(?:probe|attention\.in_proj_(?:weight|bias)|(?:attention\.out_proj|layernorm|mlp\.fc[12])"
    r"\.(?:weight|bias))": "pooling head of the vision tower, not used",
    _TOWER + r"embeddings\.position_ids": "buffer that is computed",
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq": "buffer that is computed",
    _POSITION_ENCODING: "encoding of 3D world positions, which this model does not have",
}


@dataclass
class ConversionReport:
    """Fate of every weight of a checkpoint; the converted folder keeps it as `conversion_report.json`.

    Args:
        target_dir: Folder of the converted checkpoint.
        family: Name of the model family, `IDE`, `WORLD_POSITIONS` or `LLAVA_VIDEO`.
        embedding_rows: Rows of the original embedding.
        added_embedding_rows: Rows added for the placeholder tokens; 0 where the embedding had spare ones.
        token_ids: `image_token_id`, `video_token_id`, `ground_token_id`.
        converted: Original name -> new name of every weight of the model.
        training_only: Original names of weights that only training uses; kept in `training_only_file`.
        training_only_file: Path inside the folder, None where there are no such weights.
        dropped: Original name -> reason, for weights that this model does not use; kept for the way back alone.
        newly_initialized: New names of weights that the checkpoint lacks.
        vision_tower: Folder that the vision tower was taken from, None where the checkpoint holds it.
        has_tokenizer: True where tokenizer, chat template and processor were written too.
        weight_files: Names of the weight files.
        notes: Sentences for the user about this checkpoint.
    """

    target_dir: Path
    family: str
    embedding_rows: int
    added_embedding_rows: int = 0
    token_ids: dict[str, int] = field(default_factory=dict)
    converted: dict[str, str] = field(default_factory=dict)
    training_only: list[str] = field(default_factory=list)
    training_only_file: str | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    newly_initialized: list[str] = field(default_factory=list)
    vision_tower: str | None = None
    has_tokenizer: bool = False
    weight_files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.family}, {self.embedding_rows} embedding rows",
            f"{len(self.converted)} weights -> {self.target_dir} ({len(self.weight_files)} files)",
            f"{len(self.training_only)} training-only weights -> {self.training_only_file}",
            f"{len(self.dropped)} weights not used: {sorted(set(self.dropped.values()))}",
            f"newly initialised: {self.newly_initialized}",
            f"vision tower: {self.vision_tower or 'in the checkpoint'}",
            f"token ids: {self.token_ids}; added embedding rows: {self.added_embedding_rows}",
            "tokenizer, chat template and processor: "
            f"{'written' if self.has_tokenizer else 'not written, no tokenizer files beside the source'}",
        ]
        return "\n".join([*lines, *self.notes, f"every weight by name: {REPORT_FILE}"])

    def save(self, folder: Path) -> None:
        """Write the report as JSON into a folder."""
        content = {key: value for key, value in asdict(self).items() if key != "target_dir"}
        (folder / REPORT_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def rename_key(key: str) -> str | None:
    """Return the new name of an original weight, None where it has none."""
    for pattern, target in RENAMES:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(target)
    return None


def identify_family(original: dict[str, Any], keys: Iterable[str], rows: int) -> str:
    """Return the family of a checkpoint, from its weights, settings and embedding rows."""
    if "use_depth_auxiliary_task" in original or any(key.startswith("model.dpt_module.") for key in keys):
        return IDE
    family = FAMILY_OF_ROWS.get(rows, LLAVA_VIDEO)
    has_positions = original.get("world_position_embedding_type") and "skip_3d_pe_fusion" not in original
    return WORLD_POSITIONS if has_positions and family != IDE else family


def check_position_encoding(
    original: dict[str, Any], keys: Iterable[str], family: str, ignore_position_encoding: bool
) -> list[str]:
    """Return notes about an encoding of world positions that the conversion leaves out on request.

    Raises:
        ValueError: If the checkpoint needs such an encoding and `ignore_position_encoding` is False.
    """
    kind = original.get("world_position_embedding_type")
    # Official: 3D-IDE skips the encoding unless its config says otherwise; the older families lack the key.
    skipped = original.get("skip_3d_pe_fusion", family == IDE)
    if skipped or not (kind or family == WORLD_POSITIONS or any(re.fullmatch(_POSITION_ENCODING, k) for k in keys)):
        return []
    if not ignore_position_encoding:
        raise ValueError(
            f"This checkpoint ({family}) was trained with an encoding of 3D world positions added to its visual "
            f"tokens (`world_position_embedding_type` {kind!r}), computed from depth and camera poses. This model "
            "sees RGB alone and adds none, so its answers would differ. To convert it as a start for fine-tuning, "
            "pass `ignore_position_encoding=True` (`--ignore-position-encoding`)."
        )
    return [
        "This checkpoint was trained with world positions added to its visual tokens. The converted model does not "
        "add them: fine-tune it before use."
    ]


def assign_weights(
    stored: dict[str, StoredTensor],
    wanted: dict[str, torch.Tensor],
    tower_layers: int,
    original: dict[str, Any],
    report: ConversionReport,
) -> None:
    """Decide the fate of every weight of the checkpoint, and check names and shapes.

    Args:
        stored: Weights of the checkpoint by original name, those of a separate vision tower included.
        wanted: Weights of the converted model by new name; their types do not matter.
        tower_layers: Number of layers of the converted vision tower.
        original: Content of the checkpoint's `config.json`.
        report: Report that is filled in place.

    Raises:
        ValueError: If weights are unknown, missing, double, or of another shape.
    """
    unknown, renamed = [], {}
    for key in stored:
        name = rename_key(key)
        if name in wanted:
            if name in renamed:
                raise ValueError(f"{renamed[name]} and {key} are the same weight, {name}. Keep one of them.")
            renamed[name] = key
        elif re.fullmatch(TRAINING_ONLY, key):
            report.training_only.append(key)
        elif reason := _reason_to_drop(key, name, tower_layers, wanted):
            report.dropped[key] = reason
        else:
            unknown.append(key)
    report.newly_initialized = _find_initializable(wanted, renamed, original, report)
    missing = wanted.keys() - renamed.keys() - set(report.newly_initialized)
    if unknown or missing:
        folder = sorted({str(tensor.file.parent) for tensor in stored.values()})[0]
        raise ValueError(
            f"The checkpoint in {folder} has {len(unknown)} unknown weights {shorten(unknown)} and lacks "
            f"{len(missing)} weights {shorten(missing)}. Expected the names of LLaVA-Video-Qwen2 or 3D-IDE, and the "
            "sizes that `config.json` says."
        )
    _check_shapes(stored, renamed, wanted, report.added_embedding_rows)
    report.converted = {key: name for name, key in renamed.items()}


def _reason_to_drop(key: str, name: str | None, tower_layers: int, wanted: Iterable[str]) -> str | None:
    """Return the reason to leave a weight out, None where there is none."""
    if name == OUTPUT_EMBEDDING:
        return "tied to the embedding"
    layers = "model.vision_tower.encoder.layers."
    last = f"{layers}{tower_layers}."
    if name is not None and name.startswith(last) and f"{layers}0.{name.removeprefix(last)}" in wanted:
        return "last layer of the vision tower, not used"
    return next((reason for pattern, reason in DROPPED.items() if re.fullmatch(pattern, key)), None)


def _find_initializable(
    wanted: Iterable[str], renamed: Iterable[str], original: dict[str, Any], report: ConversionReport
) -> list[str]:
    """List the new names that a checkpoint of this family may lack."""
    head = {name for name in wanted if name.startswith("grounding_head.")}
    absent = head - set(renamed)
    if absent == head and not original.get("ground_head_type"):
        report.notes.append("This checkpoint has no grounding head; the converted one is random: train it before use.")
        return sorted(absent)
    if absent == {EMPTY_REGION} and report.family != IDE:
        # Official: before 3D-IDE, the feature of an empty region was zero.
        report.notes.append(
            "This checkpoint has no vector for empty regions; it is zero, as in Video-3D-LLM and 3DRS."
        )
        return sorted(absent)
    return []


def _check_shapes(
    stored: dict[str, StoredTensor], renamed: dict[str, str], wanted: dict[str, torch.Tensor], added_rows: int
) -> None:
    wrong = []
    for name, key in renamed.items():
        tensor = stored[key]
        expected, given = tuple(wanted[name].shape), tuple(tensor.spec.shape)
        if name in EMBEDDINGS:
            expected = (expected[0] - added_rows, *expected[1:])
        if given != expected:
            wrong.append(f"{key}: expected {expected}, got {given} in {tensor.file.name}")
    if wrong:
        raise ValueError(f"{len(wrong)} weights do not have the shape that `config.json` says: {shorten(wrong)}.")


def shorten(names: Iterable[str]) -> str:
    """Return the first few names as text for an error."""
    names = sorted(names)
    return f"[{', '.join(names[:NAMES_IN_ERRORS])}{', ...' if len(names) > NAMES_IN_ERRORS else ''}]"
