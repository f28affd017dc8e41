"""Every argument that a user of these classes may pass, and what becomes of it.

A row is `name: (verdict, arguments, detail)`. Verdicts: "same" (taken, and the numbers stay), "other" (taken, and the
numbers change), "kept" (the test that the detail names holds it), "refused" (an error that the detail matches), and
"inherited" (acts outside the model and its data, as in Transformers). `tests/test_arguments.py` runs the rows, and
asks that the tables hold exactly the arguments of the installed version.
"""

from transformers import WatermarkingConfig

__all__ = ["CHAT", "GENERATION", "LOADING", "PROCESSING", "TRAINING", "Row"]

Row = tuple[str, dict, str]


def _inherited(names: str) -> dict[str, Row]:
    return {name: ("inherited", {}, "") for name in names.split()}


def _kept(**tests: str) -> dict[str, Row]:
    return {name: ("kept", {}, test) for name, test in tests.items()}


def _refused(**rows: tuple[object, str]) -> dict[str, Row]:
    return {name: ("refused", {name: value}, message) for name, (value, message) in rows.items()}


def _taken(verdict: str, **values: object) -> dict[str, Row]:
    return {name: (verdict, {name: value}, "") for name, value in values.items()}


TRAINING: dict[str, Row] = {
    **_inherited(
        "output_dir num_train_epochs lr_scheduler_type lr_scheduler_kwargs warmup_steps optim_args adam_beta1 "
        "adam_beta2 adam_epsilon optim_target_modules average_tokens_across_devices fp16 tf32 logging_strategy "
        "logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level log_level_replica "
        "disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id "
        "eval_strategy eval_steps eval_delay per_device_eval_batch_size save_strategy save_steps save_on_each_node "
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision "
        "restore_callback_states_from_checkpoint use_cpu dataloader_multiprocessing_context "
        "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph "
        "ddp_backend ddp_timeout do_train do_eval do_predict resume_from_checkpoint local_rank torch_compile_mode"
    ),
    **_kept(
        gradient_accumulation_steps="tests/trainer/test_ide3d_trainer.py accumul",
        label_smoothing_factor="tests/trainer/test_label_smoothing.py test_the_loss_is_that_of_the_next_token",
        save_total_limit="tests/trainer/test_resume.py save_total_limit",
        load_best_model_at_end="tests/trainer/test_ide3d_trainer.py load_best_model_at_end",
        metric_for_best_model="tests/trainer/test_ide3d_trainer.py metric_for_best_model",
        greater_is_better="tests/trainer/test_ide3d_trainer.py greater_is_better",
        include_for_metrics="tests/test_arguments.py test_metrics_see_inputs_and_losses",
        eval_accumulation_steps="tests/test_arguments.py test_metrics_see_inputs_and_losses",
        batch_eval_metrics="tests/test_arguments.py test_metrics_see_inputs_and_losses",
        eval_do_concat_batches="tests/test_arguments.py test_metrics_see_inputs_and_losses",
        eval_use_gather_object="tests/test_arguments.py test_metrics_see_inputs_and_losses",
        auto_find_batch_size="tests/test_arguments.py test_a_smaller_batch_is_found",
        train_sampling_strategy="tests/test_arguments.py test_samples_of_one_length_together",
        length_column_name="tests/test_arguments.py test_samples_of_one_length_together",
        include_num_input_tokens_seen="tests/test_arguments.py test_tokens_are_counted",
        save_only_model="tests/test_arguments.py test_a_checkpoint_of_the_model_alone_is_whole",
        fsdp="tests/trainer/test_processes.py fsdp",
        fsdp_config="tests/trainer/test_processes.py fsdp",
        torch_compile="tests/test_arguments.py test_a_compiled_model_learns_the_same",
        torch_compile_backend="tests/test_arguments.py test_a_compiled_model_learns_the_same",
        torch_compile_mode="tests/test_arguments.py test_a_compiled_model_learns_the_same",
    ),
    **_taken(
        "same",
        activation_checkpointing=True,
        gradient_checkpointing=True,
        torch_empty_cache_steps=1,
        use_cache=True,
        eval_on_start=True,
        prediction_loss_only=True,
        enable_jit_checkpoint=True,
        full_determinism=True,
        ignore_data_skip=True,
        dataloader_drop_last=True,
        dataloader_num_workers=1,
        dataloader_pin_memory=False,
        dataloader_in_order=False,
        accelerator_config={"split_batches": True, "dispatch_batches": True},
        skip_memory_metrics=False,
        bf16_full_eval=True,
        fp16_full_eval=True,
    ),
    "activation_checkpointing_kwargs": (
        "same",
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
        "",
    ),
    "gradient_checkpointing_kwargs": (
        "same",
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        "",
    ),
    "dataloader_persistent_workers": (
        "same",
        {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
        "",
    ),
    "dataloader_prefetch_factor": ("same", {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 3}, ""),
    **_taken(
        "other",
        per_device_train_batch_size=1,
        max_steps=1,
        learning_rate=1e-2,
        optim="sgd",
        weight_decay=10.0,
        max_grad_norm=1e-4,
        bf16=True,
        neftune_noise_alpha=5.0,
        seed=3,
        data_seed=4,
    ),
    **_refused(
        remove_unused_columns=(True, "remove_unused_columns must stay False"),
        use_liger_kernel=(True, "use_liger_kernel must stay False"),
        liger_kernel_config=({"rope": True}, "liger_kernel_config must stay None"),
        label_names=(["labels", "region_targets"], "label_names must stay None"),
        debug=("underflow_overflow", "debug must stay"),
    ),
    "parallelism_config": ("kept", {}, "tests/test_arguments.py test_parallelism_is_refused"),
    "deepspeed": ("kept", {}, "tests/trainer/test_processes.py deepspeed"),
}

_WITHOUT_PIXELS = "writes the prompt anew"
GENERATION: dict[str, Row] = {
    **_inherited(
        "pad_token_id bos_token_id decoder_start_token_id forced_bos_token_id cache_config "
        "is_assistant num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold "
        "assistant_lookbehind target_lookbehind assistant_ensemble_weight speculation_type compile_config "
        "disable_compile continuous_batching_config low_memory transformers_version _from_model_config "
        "encoder_no_repeat_ngram_size logits_processor stopping_criteria synced_gpus negative_prompt_attention_mask "
        "inputs generation_config max_time"
    ),
    **_kept(
        assistant_model="tests/modeling_ide3d/test_generation_ide3d.py assist",
        negative_prompt_ids="tests/test_arguments.py test_generation",
        custom_generate="tests/test_arguments.py test_generate_hands_over_its_inputs",
        no_repeat_ngram_size="tests/test_arguments.py test_placeholders_do_not_count_as_repeated_words",
        streamer="tests/test_arguments.py test_generate_hands_over_its_inputs",
        return_dict_in_generate="tests/test_arguments.py test_generate_hands_over_its_inputs",
        output_attentions="tests/test_arguments.py test_generate_hands_over_its_inputs",
        output_hidden_states="tests/test_arguments.py test_generate_hands_over_its_inputs",
        output_scores="tests/test_arguments.py test_generate_hands_over_its_inputs",
        output_logits="tests/test_arguments.py test_generate_hands_over_its_inputs",
        stop_strings="tests/test_arguments.py test_generate_hands_over_its_inputs",
        num_return_sequences="tests/test_arguments.py test_sequences_share_their_video_and_regions",
    ),
    **_taken(
        "same",
        use_cache=False,
        cache_implementation="static",
        prompt_lookup_num_tokens=3,
        prefill_chunk_size=4,
        min_length=3,
        min_new_tokens=3,
        renormalize_logits=True,
        remove_invalid_values=True,
    ),
    "max_cache_len": ("same", {"cache_implementation": "static", "max_cache_len": 200}, ""),
    "max_matching_ngram_size": ("same", {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 2}, ""),
    **_taken(
        "other",
        max_new_tokens=2,
        num_beams=3,
        repetition_penalty=0.01,
        encoder_repetition_penalty=9.0,
        forced_eos_token_id=7,
        sequence_bias=[[[9], 100.0]],
        guidance_scale=4.0,
        watermarking_config=WatermarkingConfig(bias=50.0),
        prefix_allowed_tokens_fn=lambda batch, ids: [9],
        eos_token_id=list(range(120)),
        suppress_tokens=list(range(100)),
        begin_suppress_tokens=list(range(60)),
        bad_words_ids=[[token] for token in range(60, 120)],
        exponential_decay_length_penalty=(1, 50.0),
    ),
    "max_length": ("other", {"max_new_tokens": None, "max_length": 36}, ""),
    "early_stopping": ("other", {"num_beams": 3, "early_stopping": True}, ""),
    "length_penalty": ("other", {"num_beams": 3, "length_penalty": 3.0}, ""),
    "do_sample": ("other", {"do_sample": True}, ""),
    **{
        name: ("other", {"do_sample": True, name: value}, "")
        for name, value in {
            "temperature": 3.0,
            "top_k": 4,
            "top_p": 0.9,
            "min_p": 0.01,
            "top_h": 0.9,
            "typical_p": 0.5,
            "epsilon_cutoff": 0.01,
            "eta_cutoff": 0.01,
        }.items()
    },
    **_refused(
        token_healing=(True, _WITHOUT_PIXELS),
        assistant_early_exit=(1, "looks for the layers of a model without a vision tower"),
        use_mtp=(True, "mtp"),
        penalty_alpha=(0.6, "Contrastive Search requires `trust_remote_code=True`"),
        dola_layers=("low", "Dola Generation requires `trust_remote_code=True`"),
        constraints=([], "Constrained Beam Search requires `trust_remote_code=True`"),
        force_words_ids=([[5]], "Constrained Beam Search requires `trust_remote_code=True`"),
    ),
    "num_beam_groups": ("refused", {"num_beams": 2, "num_beam_groups": 2, "diversity_penalty": 0.5}, "Group Beam"),
    "diversity_penalty": ("refused", {"num_beams": 2, "num_beam_groups": 2, "diversity_penalty": 0.5}, "Group Beam"),
}
GENERATION["penalty_alpha"] = ("refused", {"penalty_alpha": 0.6, "top_k": 4}, GENERATION["penalty_alpha"][2])

CHAT: dict[str, Row] = {
    **_kept(
        conversation="tests/processing/test_processing_ide3d.py apply_chat_template",
        chat_template="tests/processing/test_chat_options.py test_a_template_of_the_caller_may_use_them",
        tools="tests/processing/test_chat_options.py test_what_the_template_would_drop_is_refused",
        documents="tests/processing/test_chat_options.py test_what_the_template_would_drop_is_refused",
        add_generation_prompt="tests/processing/test_processing_ide3d.py add_generation_prompt",
        return_assistant_tokens_mask="tests/processing/test_processing_ide3d.py return_assistant_tokens_mask",
        tokenize="tests/processing/test_processing_ide3d.py tokenize",
        return_dict="tests/processing/test_processing_ide3d.py return_dict",
        return_tensors="tests/processing/test_processing_ide3d.py return_tensors",
        processor_kwargs="tests/processing/test_chat_options.py test_videos_of_a_call_have_one_rule",
        kwargs="tests/processing/test_chat_options.py test_arguments_that_nothing_takes_are_refused",
    ),
    **_taken("other", continue_final_message=True),
    **_taken("same", sanitize_control_tokens=True, load_audio_from_video=True),
}

PROCESSING: dict[str, Row] = {
    **_inherited(
        "text_target text_pair_target is_split_into_words verbose stride return_overflowing_tokens "
        "return_special_tokens_mask return_length return_text_replacement_offsets image_seq_length do_pad pad_size "
        "return_tensors"
    ),
    **_kept(
        return_mm_token_type_ids="tests/processing/test_processing_ide3d.py return_mm_token_type_ids",
        video_metadata="tests/processing/test_video_processing_ide3d.py video_metadata",
        return_metadata="tests/processing/test_video_processing_ide3d.py return_metadata",
        fps="tests/processing/test_video_processing_ide3d.py fps",
    ),
    **_taken(
        "same",
        device="cpu",
        disable_grouping=True,
        do_convert_rgb=False,
        default_to_square=False,
        add_special_tokens=False,
        padding=True,
        padding_side="left",
        pad_to_multiple_of=1,
        return_token_type_ids=True,
        sanitize_control_tokens=True,
        do_sample_frames=False,
        crop_size=None,
        input_data_format="channels_last",
    ),
    **_taken(
        "other",
        do_normalize=False,
        do_rescale=False,
        rescale_factor=1.0,
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
        resample=0,
        num_frames=2,
        return_attention_mask=False,
        return_offsets_mapping=True,
    ),
    **_refused(
        size=({"height": 42, "width": 42}, "made 42 x 42 pixels"),
        do_resize=(False, "made 24 x 32 pixels"),
        do_center_crop=(True, "crop_size"),
        truncation=(True, "Mismatch in `video` token count"),
        text_pair=("x", "text_pair"),
        data_format=("channels_last", "channels_first"),
    ),
    "max_length": ("refused", {"truncation": True, "max_length": 5}, "Mismatch in `video` token count"),
}
PROCESSING["truncation"] = PROCESSING["max_length"]

LOADING: dict[str, Row] = {
    **_inherited(
        "model_args cache_dir force_download proxies token revision local_files_only experts_implementation "
        "max_memory distributed_config device_mesh offload_buffers disable_mmap fusion_config weights_only "
        "use_safetensors kwargs"
    ),
    **_kept(
        pretrained_model_name_or_path="tests/modeling_ide3d/test_loading_ide3d.py from_pretrained",
        ignore_mismatched_sizes="tests/test_arguments.py test_loading",
        quantization_config="tests/test_arguments.py test_loading",
        offload_folder="tests/modeling_ide3d/test_loading_ide3d.py offload",
        device_map="tests/modeling_ide3d/test_loading_ide3d.py device_map",
        subfolder="tests/test_arguments.py test_loading",
        variant="tests/test_arguments.py test_loading",
        state_dict="tests/test_arguments.py test_loading",
        config="tests/test_arguments.py test_loading",
        key_mapping="tests/test_arguments.py test_loading",
        attn_implementation="tests/modeling_ide3d/test_modeling_ide3d.py attn_implementation",
        dtype="tests/modeling_ide3d/test_loading_ide3d.py dtype",
    ),
}
