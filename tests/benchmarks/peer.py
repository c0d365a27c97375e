"""The authors' side of a race, in an environment of its own: `python peer.py NAME FOLDER`.

FOLDER holds x.npy. The authors' model is made with random weights, written to FOLDER in their own layout and run once on x, and what it
said goes to FOLDER/out.npy. Then every line on standard input names a job, and its CPU and wall seconds go out as a line of JSON.
"""

import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

warnings.filterwarnings("ignore")
HORIZON = 64
T5 = {"d_model": 256, "d_kv": 64, "num_heads": 4, "d_ff": 1024, "num_layers": 4, "num_decoder_layers": 4, "dropout_rate": 0.0,
      "feed_forward_proj": "relu", "pad_token_id": 0, "decoder_start_token_id": 0}  # fmt: skip


def stepper(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], object]:
    def step():
        model.train()
        loss().backward()
        model.zero_grad()
        model.eval()
    return step


def stored(model: torch.nn.Module, folder: Path, config: Mapping) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def chronos_bolt(x, folder):
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    own = {"context_length": 512, "prediction_length": HORIZON, "input_patch_size": 16, "input_patch_stride": 16,
           "quantiles": [q / 10 for q in range(1, 10)], "use_reg_token": True}  # fmt: skip
    model = ChronosBoltModelForForecasting(T5Config(**T5, vocab_size=2, chronos_config=own)).eval()
    stored(model, folder, T5 | {"chronos_config": own})
    context, future = x[:, :-HORIZON], x[:, -HORIZON:]
    forward = lambda: model(context=context).quantile_preds
    return forward, {"forward": forward, "step": stepper(model, lambda: model(context=context, target=future.clone()).loss)}


def chronos_t5(x, folder):
    from chronos.chronos import ChronosConfig, ChronosModel, ChronosPipeline
    from transformers import T5Config, T5ForConditionalGeneration

    own = {"tokenizer_class": "MeanScaleUniformBins", "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0}, "context_length": 512,
           "prediction_length": HORIZON, "n_tokens": 4096, "n_special_tokens": 2, "pad_token_id": 0, "eos_token_id": 1,
           "use_eos_token": True, "model_type": "seq2seq", "num_samples": 20, "temperature": 1.0, "top_k": 50, "top_p": 1.0}  # fmt: skip
    inner = T5ForConditionalGeneration(T5Config(**T5, vocab_size=4096, eos_token_id=1)).eval()
    stored(inner, folder, T5 | {"chronos_config": own})
    config = ChronosConfig(**own)
    tokenizer = config.create_tokenizer()
    pipeline = ChronosPipeline(tokenizer=tokenizer, model=ChronosModel(config=config, model=inner))
    context, future = x[:4, :-HORIZON], x[:4, -HORIZON:]  # a token a step is slow
    ids, mask, scale = tokenizer.context_input_transform(context)
    labels, _ = tokenizer.label_input_transform(future, scale)
    read = lambda: inner(input_ids=ids, attention_mask=mask, labels=labels)
    forecast = lambda: pipeline.predict(context, prediction_length=16, num_samples=20)
    return lambda: read().logits, {"forward": lambda: read().logits, "step": stepper(inner, lambda: read().loss), "forecast": forecast}


def mantis(x, folder):
    from mantis.architecture import MantisV1

    sizes = {"seq_len": 512, "hidden_dim": 256, "num_patches": 32, "transf_depth": 6, "transf_num_heads": 8, "transf_mlp_dim": 512,
             "transf_dim_head": 128, "transf_dropout": 0.0}  # fmt: skip
    model = MantisV1(**sizes, device="cpu").eval()
    stored(model, folder, sizes | {"hidden_dim_scalar_enc": 32})
    rows = x[:, None, -512:]
    return lambda: model(rows), {"forward": lambda: model(rows), "step": stepper(model, lambda: model(rows).square().mean())}


def moment(x, folder):
    from argparse import Namespace

    from momentfm.models.moment import MOMENT

    t5 = {"d_model": 512, "d_kv": 64, "num_heads": 6, "d_ff": 1024, "num_layers": 4, "num_decoder_layers": 4, "dropout_rate": 0.0,
          "feed_forward_proj": "gated-gelu", "vocab_size": 16, "is_encoder_decoder": True, "tie_word_embeddings": False}  # fmt: skip
    config = {"task_name": "reconstruction", "model_name": "MOMENT", "transformer_type": "encoder_only", "d_model": None, "seq_len": 512,
              "patch_len": 8, "patch_stride_len": 8, "device": "cpu", "transformer_backbone": "google/flan-t5-small", "t5_config": t5,
              "revin_affine": False, "patch_dropout": 0.0, "head_dropout": 0.0}  # fmt: skip
    open_for_training = {"freeze_embedder": False, "freeze_encoder": False, "enable_gradient_checkpointing": False}
    model = MOMENT(Namespace(**config, **open_for_training)).eval()
    stored(model, folder, config)
    series, mask = x[:, None, -512:], torch.ones(len(x), 512, dtype=torch.long)
    hidden = mask.clone().unflatten(1, (64, 8))
    hidden[:, ::3] = 0
    read = lambda: model(x_enc=series, input_mask=mask, mask=hidden.flatten(1)).reconstruction
    return read, {"forward": read, "step": stepper(model, lambda: (read() - series).square().mean())}


def timesfm(x, folder):
    from timesfm.timesfm_2p5 import timesfm_2p5_base
    from timesfm.timesfm_2p5.timesfm_2p5_torch import TimesFM_2p5_200M_torch_module

    full, width, layers = timesfm_2p5_base.TimesFM_2p5_200M_Definition(), 256, 4
    stack = full.stacked_transformers
    block = lambda found, **sizes: dataclasses.replace(found, hidden_dims=width, **sizes)
    small = dataclasses.replace(
        full, output_quantile_len=256, tokenizer=block(full.tokenizer, output_dims=width),
        stacked_transformers=dataclasses.replace(stack, num_layers=layers, transformer=dataclasses.replace(
            stack.transformer, model_dims=width, hidden_dims=width, num_heads=4)),
        output_projection_point=block(full.output_projection_point, input_dims=width, output_dims=1280),
        output_projection_quantiles=block(full.output_projection_quantiles, input_dims=width, output_dims=2560))  # fmt: skip
    model = type("Small", (TimesFM_2p5_200M_torch_module,), {"config": small})().eval()
    stored(model, folder, {"model_dims": width, "decode_index": full.decode_index})
    series, mask = x[:, -512:], torch.zeros(len(x), 512, dtype=torch.bool)
    patches, patch_mask = series.unflatten(1, (-1, 32)), mask.unflatten(1, (-1, 32))

    def both():
        (_, _, point, spread), _ = model(patches, patch_mask)
        return point.square().mean() + spread.square().mean()

    forward = lambda: model.decode(128, series, mask)[0][:, -1]
    return forward, {"forward": forward, "step": stepper(model, both)}


def main(name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.from_numpy(np.load(folder / "x.npy"))
    output, jobs = globals()[name.replace("-", "_")](x, folder)
    with torch.no_grad():
        np.save(folder / "out.npy", output().numpy())
    print(json.dumps({"jobs": list(jobs)}), flush=True)
    for line in sys.stdin:
        job = line.strip()
        cpu, wall = time.process_time(), time.perf_counter()
        with torch.set_grad_enabled(job == "step"):
            jobs[job]()
        print(json.dumps({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
