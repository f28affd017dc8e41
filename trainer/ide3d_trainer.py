"""Trainer that weighs, sums and logs the loss terms, and saves the training-only heads in checkpoints."""

import logging
import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from modeling_ide3d.auxiliary import IDE3DGeometryOutputWithPast
from trainer.loop.checkpoints import (
    GEOMETRY_WEIGHTS,
    CheckpointInProgress,
    clear_checkpoint,
    load_heads,
    save_heads,
    written_whole,
)
from trainer.loop.checks import IdleHeads, check_processes, check_protocol, prepare_model, set_max_length
from trainer.loop.compiled import with_own_loss
from trainer.loop.length_groups import LengthSampler, measure_lengths
from trainer.loop.mixture import MixtureDataset, build_mixture_sampler
from trainer.loop.model_parts import compute_gradient_norms, split_groups
from trainer.loop.nonfinite import NonfiniteBatches
from trainer.loop.resuming import check_optimizer, check_resumable, choose_checkpoint
from trainer.loop.start import (
    BeginningOfTraining,
    ExplainedCollator,
    check_supervision,
    check_train_samples,
    samples_named,
    warn_of_earlier_run,
)
from trainer.loop.step_statistics import (
    DEPTH_FIGURES,
    TASK_FIGURES,
    RunningMeans,
    drop_repeats,
    measure_geometry,
    measure_tasks,
)
from trainer.supervision.camera_targets import CAMERA_FIGURES
from trainer.supervision.label_smoothing import smoothed_labels
from trainer.training_arguments import IDE3DTrainingArguments

logger = logging.getLogger(__name__)


class IDE3DTrainer(Trainer):
    """`Trainer` for [`IDE3DForConditionalGenerationWithGeometry`].

    It hands the model its criterion, adds the weighted terms to the language loss and logs each of them. Vision tower
    and heads have their own learning rates. Every checkpoint holds the heads as `geometry_modules.safetensors`, so
    that a resumed run continues with them; its inference weights stay free of them.

    Args:
        model: Training model. A search for hyperparameters gives `model_init` instead, which makes one a training.
        args: Training arguments.
        **kwargs: Further arguments of `Trainer`.

    Raises:
        TypeError: If the model has no place for a criterion, or there are no arguments.
        ValueError: If arguments, model and collator follow different protocols or contradict each other, or the
            processes cannot train.
    """

    args: IDE3DTrainingArguments
    extra_figures: tuple[str, ...] = ()  # what `compute_extra_terms` of a subclass logs, its terms included

    def __init__(self, model: nn.Module | None = None, args: IDE3DTrainingArguments | None = None, **kwargs: Any):
        if args is None:
            raise TypeError("IDE3DTrainer needs `args`, which say how its terms are weighed: IDE3DTrainingArguments.")
        self._resumed_from: str | None = None
        if model is not None:
            self._core = prepare_model(model, args)  # otherwise `call_model_init` does it
        super().__init__(model=model, args=args, **kwargs)
        if kwargs.get("data_collator") is None:
            self.data_collator = ExplainedCollator(self.data_collator)
        if self.optimizer is not None and args.learning_rates:
            raise ValueError(f"Learning rates by part, {args.learning_rates}, do not reach a given optimizer.")
        self.label_smoother = None  # it takes the labels from the model; `compute_loss` smooths the model's own loss
        self.current_gradient_accumulation_steps = 1  # of a loss outside a training
        self._core.is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        check_processes(args, self.accelerator.distributed_type, self._core.is_sharded)
        check_protocol(args, self._core.geometric_validator, self.data_collator)
        check_supervision(args, self._core, self.data_collator)
        set_max_length(self._core.config, self.data_collator)
        for callback in (IdleHeads(lambda: self._core), CheckpointInProgress(), BeginningOfTraining()):
            self.add_callback(callback)
        self._nonfinite = NonfiniteBatches(args.max_nonfinite)
        names = ("loss_language", *args.loss_weights, *DEPTH_FIGURES, *CAMERA_FIGURES)
        self._means = {
            "train": RunningMeans((*names, "valid_pixels", *self.extra_figures)),
            "eval": RunningMeans((*names, *TASK_FIGURES)),
        }
        self._step_counts: dict[str, Tensor] | None = None
        self._gradient_norms: dict[str, Tensor] = {}

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make the model of a training, with the heads of its checkpoint."""
        model = super().call_model_init(trial)
        self._core = prepare_model(model, self.args)
        self._core.is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self._load_resumed_heads()
        return model

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """Return the batches of an optimizer step with targets, and their number of answer tokens.

        The denominators of the other terms are counted here too: over all batches and processes, before the first
        forward pass.
        """
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        names = list(self._want_terms(is_training=True))
        counts = torch.zeros(len(names), device=device)
        # Pairs that are drawn at random depend on seed and step alone: a resumed run restores the global state of
        # random numbers only after this call.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(hash((self.args.seed, self.state.global_step, self.args.process_index)) % 2**63)
            for index, batch in enumerate(batches):
                # From the batch as it came: Trainer casts the floats of what it prepares for DeepSpeed.
                batch = self._add_targets(batch)
                with samples_named(batch):
                    found = self._count_terms(batch["targets"].tensors)
                for name, count in found.items():
                    counts[names.index(name)] += count
                batches[index] = {**batch, "targets": replace(batch["targets"], counts=found)}
        counts = self.accelerator.gather(counts.unsqueeze(0)).sum(0)
        self._step_counts = dict(zip(names, counts, strict=True))
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Language loss plus weighted terms; see `Trainer.compute_loss` for the contract of `num_items_in_batch`.

        Every term is a mean over what it was computed on in a whole optimizer step, however that is spread over
        accumulated batches and processes: answer tokens, measured pixels, frame pairs, visual tokens, samples.
        """
        is_training = model.training
        weights = self._want_terms(is_training)
        if "targets" not in inputs:
            inputs = self._add_targets(inputs)
        targets, counts = inputs["targets"].tensors, inputs["targets"].counts
        if counts is None:  # outside a training
            with samples_named(inputs):
                counts = self._count_terms(targets)
        labels = inputs.get("labels")
        if not is_training:
            num_items_in_batch = None  # Trainer counts the answer tokens of all processes: the loss would be a share
        with smoothed_labels(self._core, self.args.label_smoothing_factor):
            call = with_own_loss(model) if self.args.torch_compile else model
            loss, outputs = super().compute_loss(
                call, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
            )
        # Terms without a count are zeros that keep their heads in the graph, for processes that wait for gradients.
        terms = {name: outputs[name] for name in weights if outputs.get(name) is not None}
        figures = measure_geometry(outputs, targets, self.args.depth_range)
        if is_training:
            extra, extra_figures = self.compute_extra_terms(inputs, targets)
            terms |= extra
            steps, processes = self.current_gradient_accumulation_steps, self.accelerator.num_processes
            terms = self._shares_of_step(terms, counts)
            # With num_items_in_batch the language loss is a share already; otherwise Trainer divides by the steps.
            is_share = num_items_in_batch is not None
            auxiliary = sum(weights[name] * term for name, term in terms.items()) * (1 if is_share else steps)
            figures |= {name: (term.detach(), 1 / steps) for name, term in terms.items() if weights[name]}
            figures["loss_language"] = (loss.detach() / (1 if is_share else steps), 1 / steps)
            figures["valid_pixels"] = (counts.get("loss_depth", 0), 1 / (steps * processes))
            figures |= extra_figures
        else:
            auxiliary = sum(weights[name] * term for name, term in terms.items())
            if "loss_view_consistency" in counts:
                compared = self._core.criterion.count_compared(outputs, targets)
                counts = {**counts, "loss_view_consistency": compared}
            figures |= {name: (terms[name] * count, count) for name, count in counts.items() if name in terms}
            figures |= measure_tasks(outputs, labels, targets)
            num_tokens = figures["token_accuracy"][1] if labels is not None else 0
            figures["loss_language"] = (loss * num_tokens, num_tokens)
        total = loss + auxiliary
        if is_training and not torch.isfinite(total):
            wanted = {name: term for name, term in terms.items() if weights[name]}
            broken = {"loss_language": loss, **wanted}
            total = self._nonfinite.skip(inputs, self.state.global_step, broken, self._core.parameters())
        else:
            self._means["train" if is_training else "eval"].add(figures, loss.device)
        return (total, outputs) if return_outputs else total

    def compute_extra_terms(self, inputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict, dict]:
        """Compute the training terms of a subclass, and their `extra_figures` as sums and counts."""
        return {}, {}

    def _add_targets(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "targets": self._core.build_targets(**batch)}

    def _count_terms(self, targets: dict[str, Any]) -> dict[str, Tensor]:
        return self._core.criterion.count(targets)

    def _shares_of_step(self, terms: dict[str, Tensor], counts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the parts of a batch in the means over its optimizer step.

        A term without a count is a zero already.
        """
        totals = self._step_counts if self._step_counts is not None else counts
        shares = {
            name: counts[name] / totals[name].clamp(min=torch.finfo(torch.float32).tiny)
            for name in terms
            if name in counts
        }
        # Gradients are averaged over the processes: a share of the sum has to be multiplied by their number.
        processes = self.accelerator.num_processes
        return {name: term * (shares[name] * processes) if name in shares else term for name, term in terms.items()}

    def _want_terms(self, is_training: bool) -> dict[str, float]:
        """Return the weight of each term now, and tell the criterion which are wanted.

        Training follows the schedule; evaluation takes the full weights.
        """
        weights = self.args.loss_weights
        if is_training:
            weights = self.args.loss_weights_at(self.state.global_step, self.state.max_steps)
        self._core.criterion.terms = frozenset(name for name in weights if weights[name])
        return weights

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """See `Trainer.training_step`; takes the gradient norm of each part where the step will be logged."""
        loss = super().training_step(model, *args, **kwargs)
        step = self.state.global_step + 1
        is_logged = self.args.logging_strategy == "steps" and step % self.state.logging_steps == 0
        if is_logged and self.accelerator.sync_gradients and not self.is_deepspeed_enabled:
            self._gradient_norms = compute_gradient_norms(self._core, self.accelerator.scaler)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of every term since the last log, over all processes.

        Raises:
            FloatingPointError: If a term became NaN or Inf: the weights are lost, and training on would hide it.
        """
        if "loss" in logs or "train_loss" in logs:  # the second is the end of the training
            terms = self._means["train"].pop(self.accelerator.gather, self.args.device)
            broken = [name for name, value in terms.items() if not math.isfinite(value)]
            if broken:
                raise FloatingPointError(
                    f"{', '.join(broken)} became NaN or Inf by step {self.state.global_step}. Lower the learning "
                    "rate, clip gradients (max_grad_norm) or look for the sample; then resume from an old checkpoint."
                )
            if "loss" in logs:
                norms = {f"grad_norm_{part}": norm.item() for part, norm in self._gradient_norms.items()}
                logs.update({**terms, **norms})
        super().log(logs, start_time)

    def evaluation_loop(
        self, dataloader: DataLoader, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Evaluate; every term, depth error and task accuracy is among the metrics.

        Each is a mean over what it was computed on in the whole set, say all measured pixels for `eval_depth_abs_rel`,
        and `eval_loss` is the weighted sum of the terms: neither depends on how the set is cut into batches.
        """
        self._means["eval"].clear()
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        figures = self._means["eval"].pop(self.accelerator.gather, self.args.device)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in figures.items()})
        if "loss_language" in figures:
            weights = {"loss_language": 1.0, **self.args.loss_weights}
            total = sum(weight * figures[name] for name, weight in weights.items() if name in figures)
            output.metrics[f"{metric_key_prefix}_loss"] = total
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Hand `compute_metrics` the logits alone: shapes of other outputs differ between batches."""
        if ignore_keys is None:
            ignore_keys = [item.name for item in fields(IDE3DGeometryOutputWithPast) if item.name != "logits"]
        self._want_terms(is_training=False)
        counted = inputs if self.args.dataloader_drop_last else drop_repeats(inputs, self.accelerator)
        batch = self._add_targets(counted)
        if "region_targets" in inputs:  # the forward pass asks them which `<ground>` is a query
            batch["region_targets"] = inputs["region_targets"]
        return super().prediction_step(model, batch, prediction_loss_only, ignore_keys)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create Trainer's optimizer, its groups split by part where parts have learning rates."""
        is_new = self.optimizer is None
        if is_new and self.model_init is not None and not self._core.is_sharded:
            prepare_model(self.model, self.args)  # a trial changes the arguments after it has made its model
        optimizer = super().create_optimizer(model)
        rates = self.args.learning_rates
        if is_new and rates:
            names = {id(value): name for name, value in (model or self.model).named_parameters()}
            optimizer.param_groups[:] = split_groups(optimizer.param_groups, names, rates)
        if self._resumed_from and not self._core.is_sharded:
            check_optimizer(optimizer, self._resumed_from)
        return optimizer

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train; see `Trainer.train`. `resume_from_checkpoint=True` takes the last checkpoint that is whole.

        A run whose checkpoint has all steps already trains none, writes none, and keeps its weights.

        Raises:
            TypeError: If `resume_from_checkpoint` is neither a folder nor True.
            ValueError: If there is no whole checkpoint to resume from, or it is that of another model.
            OSError: If a checkpoint is damaged, or cannot be written. What was written of it is removed, earlier ones
                stay.
        """
        folder = choose_checkpoint(resume_from_checkpoint, self.args.output_dir)
        if folder is None:
            warn_of_earlier_run(self.args)
        elif not self._core.is_sharded:
            check_resumable(folder, self.model, self._core, self.args.world_size, self.args.process_index)
        self._resumed_from = folder
        self._load_resumed_heads()
        with written_whole(lambda: self._in_progress, self.args.should_save):
            return super().train(folder, *args, **kwargs)

    @property
    def _in_progress(self) -> CheckpointInProgress:
        # Trainer makes another one where it restores callbacks from a checkpoint.
        return next(item for item in self.callback_handler.callbacks if isinstance(item, CheckpointInProgress))

    def _load_resumed_heads(self) -> None:
        if self._resumed_from and not self._core.is_sharded:  # FSDP and DeepSpeed keep the training model whole
            load_heads(self._core, self._resumed_from)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model and its heads; see `Trainer.save_model`. A checkpoint begins in an empty folder."""
        if _internal_call and output_dir is not None:
            self._in_progress.folder = Path(output_dir)
            if self.args.should_save:
                clear_checkpoint(output_dir, has_rotation=bool(self.args.save_total_limit))
            self.accelerator.wait_for_everyone()
        super().save_model(output_dir, _internal_call)

    # Four methods of Trainer that its documentation does not offer for overriding; each says why there is no other
    # way. A new version of Transformers may rename them: `tests/trainer` fails then.

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        # Trainer has no argument for a sampler; `get_train_dataloader` would have to be copied whole for one.
        dataset = self.train_dataset if train_dataset is None else train_dataset
        check_train_samples(dataset)
        if isinstance(dataset, list) and self.args.train_sampling_strategy == "group_by_length":
            lengths, seed = measure_lengths(dataset, self.data_collator), self.args.data_seed
            batch = self._train_batch_size * self.args.world_size
            return LengthSampler(lengths, batch, self.args.seed if seed is None else seed)
        if not isinstance(dataset, MixtureDataset):
            return super()._get_train_sampler(train_dataset)
        # Not the size of the arguments, which `auto_find_batch_size` may have lowered.
        return build_mixture_sampler(dataset, self.args, self._train_batch_size)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Trainer looks at the number of steps behind each step only: a finished run would train one more.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)
        else:
            self.control.should_training_stop = True

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # Only here are weights at hand that FSDP or DeepSpeed gathered; gathering them twice costs a whole model.
        # Taken first: save_pretrained removes these keys from the dictionary it is given.
        gathered = None
        if state_dict is not None:
            gathered = {key.removeprefix("base_model.model."): value for key, value in state_dict.items()}
        heads = self._core.geometry_state_dict(gathered)
        super()._save(output_dir, state_dict)
        if heads and self.args.should_save:
            validator = self._core.geometric_validator
            config = None if validator is None else validator.config
            save_heads(heads, output_dir or self.args.output_dir, config)

    def _load_best_model(self) -> None:
        # Callbacks at the end of the training, of users and of loggers, already expect the best model with its heads.
        super()._load_best_model()
        if not self._core.is_sharded:
            load_heads(self._core, self.state.best_model_checkpoint)


__all__ = ["GEOMETRY_WEIGHTS", "IDE3DTrainer", "prepare_model"]
