"""What runs a student's code: it computes outputs for inputs that it is sent, and knows no right value and no verdict.

The grader copies this file out of the project and runs it alone. It imports torch once, then forks one process per job,
so no two jobs share a process. A line of JSON on stdin starts a job, a line on stdout says how its process ended.
Inputs and outputs are files for torch.load(weights_only=True).
"""

import ast
import copy
import ctypes
import gc
import importlib.util
import inspect
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from argparse import Namespace
from contextlib import suppress
from types import MethodType

import numpy as np
import torch
from torch import nn

NOBODY = 65534  # the user as whom a student's code runs where the grader is root
LARGEST = 2_000_000  # numbers in one tensor that is sent back
COURSE_ARGS = dict(
    e_path="./e_params.pkl",
    d_path="./d_params.pkl",
    hidden_units=500,
    latent_dimension=2,
    data_dimension=784,
    resume_training=False,
    seed=1234,
    num_epoches=200,
    batch_size=100,
)

# ---------------------------------------------------------------------------------------------- the submission


class CourseUtils:
    """Finds the course's module under whatever number a submission asks for: hw3_utils, HW5_utils."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if re.fullmatch(r"(?i)hw_?\d*_?utils", name):
            return importlib.util.spec_from_file_location(name, os.path.abspath("hw5_utils.py"))
        return None


def load(name, definitions_only):
    """The submission's module. With definitions_only what it runs besides defining things is left out."""
    path = os.path.abspath(f"{name}.py")
    sys.argv = [f"{name}.py"]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), path)
    if not definitions_only:
        for node in tree.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                if call := re.search(r"\b(main|train|run|fit)\w*$", ast.unparse(node.value.func)):
                    raise RuntimeError(f"line {node.lineno} calls {call[0]}() at import")
        spec.loader.exec_module(module)
        return module
    for statement in definitions(tree):
        with suppress(Exception, SystemExit):
            exec(compile(ast.Module([statement], []), path, "exec"), module.__dict__)
    return module


def definitions(tree):
    """The top-level statements that define: imports, functions, classes, and variables that need neither of these."""
    own = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
            yield node
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.Try, ast.If)):
            names = {part.id: part.ctx for part in ast.walk(node) if isinstance(part, ast.Name)}
            if own.isdisjoint(names) and "__name__" not in names:
                yield node
            else:
                own |= {name for name, context in names.items() if isinstance(context, ast.Store)}


def make_vae(module):
    """A VAE built from the course's arguments and those that the submission's own parse_args adds."""
    own = {}
    with suppress(Exception, SystemExit):
        own = vars(module.parse_args())
    args = Namespace(**{**own, **COURSE_ARGS})
    try:
        return module.VAE(args)
    except Exception:  # a method may be right though the constructor, or a network that it builds, is not
        vae = module.VAE.__new__(module.VAE)
        if isinstance(vae, nn.Module):
            nn.Module.__init__(vae)
        vae.__dict__.update(vars(args), args=args)
        return vae


def candidates(module, names, arguments):
    """What may be meant by the first of `names` and takes these arguments: functions of the module, methods of VAE."""
    functions = [getattr(module, name) for name in names if callable(getattr(module, name, None))]
    owner = getattr(module, "VAE", None)
    for name in names:
        kind = inspect.getattr_static(owner, name, None)
        if isinstance(kind, (staticmethod, classmethod)):
            functions.append(getattr(owner, name))
        elif inspect.isfunction(kind):
            without_self = next(iter(inspect.signature(kind).parameters), "") != "self"
            functions.append(kind if without_self and fits(kind, arguments) else getattr(make_vae(module), name))
    if not functions:
        raise AttributeError(f"there is no function {names[0]}")
    return [function for function in functions if fits(function, arguments)] or functions[:1]


def fits(function, arguments):
    with suppress(ValueError):
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError:
            return False
    return True


# ------------------------------------------------------------------------------------------------------- jobs


def seed_all(seed):
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def describe(error):
    """The error in a line, with the place in the submission where it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in frames if frame.filename.endswith(("_vae.py", "_gan.py"))]
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


def guarded(function, *arguments):
    """function's answer, a dictionary, or its error as one."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        return {"error": describe(error)}


def to_send(value):
    """A copy of a tensor, array or number that can be saved."""
    if isinstance(value, (np.ndarray, np.generic, float, int)):
        value = torch.as_tensor(value)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"a {type(value).__name__} is returned, expected a tensor")
    if value.numel() > LARGEST:
        raise ValueError(f"a tensor of shape {list(value.shape)} is returned")
    return value.detach().cpu().clone().contiguous()


def gradients(value, inputs):
    """d(sum of value)/d(input) for every input, None where none arrives."""
    if not (isinstance(value, torch.Tensor) and value.requires_grad):
        return [None] * len(inputs)
    grads = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
    return [None if grad is None else to_send(grad) for grad in grads]


def call_one(module, call):
    leaves = [
        each.clone().requires_grad_() if number in call["grad"] else each for number, each in enumerate(call["args"])
    ]
    # Copies are handed over, not leaves, which may not be changed in place: in training they are no leaves either.
    arguments = [each.clone() if isinstance(each, torch.Tensor) else each for each in leaves]
    for function in (functions := candidates(module, call["names"], arguments)):
        seed_all(call["seed"])
        try:
            value = function(*arguments)
            break
        except NotImplementedError:
            if function is functions[-1]:
                raise
    wanted = [each for each in leaves if isinstance(each, torch.Tensor) and each.requires_grad]
    return {"value": to_send(value), "grads": gradients(value, wanted)}


def job_call(module, job):
    """Calls of functions, each on its own: its value and the gradients that reach its arguments."""
    return {"calls": [guarded(call_one, module, call) for call in job["calls"]]}


def build(cls, job):
    """A network, and the error of its _weight_init, without which it is built where there is one."""
    seed_all(job["seed"])
    try:
        return cls(*job["init"]), None
    except Exception as error:
        if "_weight_init" not in [frame.name for frame in traceback.extract_tb(error.__traceback__)]:
            raise
        cls._weight_init = lambda self: None
        return cls(*job["init"]), describe(error)


def some_layers(cls, seed):
    """What cls._weight_init is tried on where its own network cannot be built."""
    seed_all(seed)
    net = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Conv2d(4, 6, 3))
    net._weight_init = MethodType(cls._weight_init, net)
    net._weight_init()
    return net


@torch.no_grad()
def move(parameters, size):
    generator = torch.Generator().manual_seed(0)
    for each in parameters:
        each += size * torch.randn(each.shape, generator=generator)


def initialise_again(net, seed):
    seed_all(seed)
    net._weight_init()
    return {"parameters": [to_send(each) for each in net.parameters()]}


def job_network(module, job):
    """A network as built with a seed, as _weight_init makes it again, and what it computes with its weights moved."""
    if not hasattr(module, job["class"]):
        raise AttributeError(f"there is no class {job['class']}")
    try:
        net, init_error = build(getattr(module, job["class"]), job)
    except Exception:
        if "input" in job:
            raise
        net, init_error = some_layers(getattr(module, job["class"]), job["seed"]), None
    answer = {
        "parameters": [to_send(each) for each in net.parameters()],
        "init_error": init_error,
        "kinds": [type(each).__name__ for each in net.modules()],
    }
    if init_error is None and hasattr(net, "_weight_init"):
        answer["again"] = guarded(initialise_again, copy.deepcopy(net), job["seed"])
    move(net.parameters(), 0.1)  # so that biases are not 0
    answer["moved"] = [to_send(each) for each in net.parameters()]

    def forward():
        x = job["input"].clone().requires_grad_()
        value = net(x.clone())
        grads = gradients(value, [x, *net.parameters()])
        return {"value": to_send(value), "grads": grads}

    if "input" in job:
        answer["forward"] = guarded(forward)
    if "other" in job:
        answer["other"] = guarded(lambda: {"value": to_send(type(net)(*job["other"]["init"])(job["other"]["input"]))})
    return answer


class PlainD(nn.Module):
    """A stand-in for a discriminator: one matrix."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x):
        return x.flatten(1) @ self.weight


class PlainG(PlainD):
    """A stand-in for a generator: one matrix, and images of any range."""

    def forward(self, z):
        return (z @ self.weight).reshape(-1, 1, 28, 28)


def make_gan(module, job):
    """A GAN with the stand-ins, so that its losses are judged whatever its networks are."""
    networks = PlainD(job["disc"]), PlainG(job["gen"])
    module.DNet, module.GNet = (lambda *_, net=net, **__: net for net in networks)
    try:
        gan = module.GAN(len(job["gen"]))
    except Exception:
        gan = module.GAN.__new__(module.GAN)
        gan._dev, gan._zdim = torch.device("cpu"), len(job["gen"])
    gan.disc, gan.gen = networks
    return gan


def loss_of(gan, module, job, call):
    seed_all(call["seed"])
    method = getattr(gan, job["method"], None) or getattr(module, job["method"])
    before = [each.detach().clone() for each in (*gan.disc.parameters(), *gan.gen.parameters())]
    value = method(*[each.clone() if isinstance(each, torch.Tensor) else each for each in call["args"]])
    after = [*gan.disc.parameters(), *gan.gen.parameters()]
    trains = any(each.grad is not None for each in after) or not all(map(torch.equal, before, after))
    grads = [] if trains else gradients(value, after)
    return {"value": to_send(value), "grads": grads, "trains": trains}


def job_loss(module, job):
    """A loss of GAN with the stand-ins, for every call; and with the submission's own networks, beside what D says."""

    def own():
        z = job["calls"][0]["args"][-1]
        for size in (0.3, 0.1, 0.03, 0):  # until a D that ends with a sigmoid is neither sure nor always at 0.5
            gan = module.GAN(len(job["gen"]))
            move([*gan.disc.parameters(), *gan.gen.parameters()], size)
            distance = (torch.cat([gan.disc(job["x"]), gan.disc(gan.gen(z))]) - 0.5).abs().max()
            if 0.05 < distance < 0.48:
                break
        answer = loss_of(gan, module, job, job["calls"][0])
        return {
            "value": answer["value"],
            "fake": to_send(gan.disc(gan.gen(z))),
            "real": to_send(gan.disc(job["x"])),
            "far": to_send(gan.disc(job["far"])),
        }

    answer = {"own": guarded(own)}
    answer["calls"] = [
        guarded(lambda call=call: loss_of(make_gan(module, job), module, job, call)) for call in job["calls"]
    ]
    return answer


def job_import(module, job):
    return {}


JOBS = {"import": job_import, "call": job_call, "network": job_network, "loss": job_loss}

# ---------------------------------------------------------------------------------------------------- processes


def confine(job):
    """No terminal, no pipes, limited memory, files and processor time, a process group of its own; nobody, for root."""
    import resource

    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, 1024)
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 64 * 2**20, resource.RLIMIT_CPU: int(job["seconds"]) + 2}
    with suppress(OSError), open("/proc/self/statm") as file:  # torch alone reserves gigabytes of addresses
        limits[resource.RLIMIT_AS] = int(file.read().split()[0]) * resource.getpagesize() + job["memory"]
    for limit, value in limits.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    if job["as_nobody"]:
        become_nobody()


def become_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def can_be_nobody():
    """Whether this is root, and the installed packages may be read by nobody."""
    if os.geteuid() != 0:
        return False
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            become_nobody()
            for package in (os, torch, np):
                open(package.__file__).close()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def work(job):
    confine(job)
    os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), job["folder"]))
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    sys.meta_path.insert(0, CourseUtils)
    request = torch.load(job["request"], weights_only=True)

    def answer():
        start = time.process_time()
        module = load(job["file"], job["definitions_only"])
        return {"seconds": time.process_time() - start, **JOBS[request["job"]](module, request)}

    torch.save(guarded(answer), job["answer"])


def sweep():
    """End what a job has left running: orphans become children of this process (PR_SET_CHILD_SUBREAPER)."""
    for _ in range(100):
        with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
            for pid in file.read().split():
                with suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            while os.waitpid(-1, 0):
                pass
        except ChildProcessError:
            return


def run(job):
    """How the job's process ended: {"timed_out": bool, "code": exit code, or minus the signal that ended it}."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            work(job)
            code = 0
        finally:
            os._exit(code)
    deadline, timed_out = time.monotonic() + job["seconds"], False
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline and not timed_out:
            timed_out = True
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    sweep()
    return {"timed_out": timed_out, "code": os.waitstatus_to_exitcode(ended[1])}


def serve():
    with suppress(ImportError):  # once here, not in every job
        import matplotlib.pyplot  # noqa: F401
        import torchvision  # noqa: F401
        import tqdm  # noqa: F401
    torch.set_num_threads(1)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    gc.collect()
    gc.freeze()
    print(json.dumps({"as_nobody": can_be_nobody()}), flush=True)
    while line := sys.stdin.readline():
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
