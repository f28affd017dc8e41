"""Transformers' tests that cannot apply to our classes, by the reason: exactly these fail.

A key is the name of a test without the suffix of its parameters; all its parameters fail then.
"""

AUDIO = "it hands audio to every processor; ours refuses it"
NO_PIXELS = "it leaves the pixels out; placeholders without pixels are refused on purpose"
LAST_NORM = "it wants a gradient for every weight; the tower's last norm comes after the state that is read"
TOOLS = "it hands tool calls to every template; ours refuses them by name"
PICTURES = "it wants no sampling of a list of pictures; ours samples it as any stored video"

EXCEPTIONS: dict[str, dict[str, str]] = {
    "TestProcessor": {
        "test_apply_chat_template_tool_calls_no_content": TOOLS,
        "test_apply_chat_template_video_frame_sampling": PICTURES,
        "test_flat_kwarg_applied_when_modality_dict_lacks_it": AUDIO,
        "test_model_input_names": AUDIO,
    },
    "TestModels": {
        "test_eager_matches_sdpa_inference": NO_PIXELS,
        "test_training_gradient_checkpointing": LAST_NORM,
        "test_training_gradient_checkpointing_use_reentrant_false": LAST_NORM,
        "test_training_gradient_checkpointing_use_reentrant_true": LAST_NORM,
    },
}
