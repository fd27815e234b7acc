"""What runs a student's code: it computes outputs for inputs that it is sent, and knows no right value and no verdict.

The grader copies this file out of the project and runs it alone. It imports torch once, then forks a process per job.
Where the system allows it, each job has its own namespaces: with the job's first process all others end, and there is
no network. A line of JSON on stdin starts a job, a line on stdout says how it ended.
Inputs and outputs are files for torch.load(weights_only=True).
"""

import __future__

import ast
import copy
import ctypes
import gc
import importlib
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
from types import GeneratorType, MethodType

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

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
        if re.fullmatch(r"(?i)hw_?\d*[_-]?utils", name):
            return importlib.util.spec_from_loader(name, CourseUtils)
        return None

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        """The course's names, then those of a copy that was handed in."""
        for path in ("course_utils.py", f"{module.__name__}.py"):
            module.__file__ = os.path.abspath(path)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    exec(compile(file.read(), module.__file__, "exec"), module.__dict__)


class WithoutGPU(TorchFunctionMode):
    """Takes "cuda" for the CPU, so that a .cuda() costs nothing; `asked` remembers it."""

    asked = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cuda:
            WithoutGPU.asked = True
            return args[0]
        return function(*map(self.on_cpu, args), **{name: self.on_cpu(each) for name, each in (kwargs or {}).items()})

    @staticmethod
    def on_cpu(value):
        if isinstance(value, (torch.device, str)) and str(value).startswith(("cuda", "mps")):
            WithoutGPU.asked = True
            return "cpu"
        return value


def readable(source, path):
    """(the syntax tree, remarks). A body of comments only is not answered; a notebook's magics are no Python."""
    empty, remarks = [], []
    while True:
        try:
            tree = ast.parse(source, path)
            said = "without a statement, which Python cannot read: taken as not answered"
            return tree, [*(f"line {line}: {said}" for line in empty), *remarks]
        except IndentationError as error:
            found = re.match(r"expected an indented block after .* on line (\d+)", error.msg)
            if not found or len(empty) == 50:
                raise
            lines = source.decode("utf-8", "replace").split("\n")
            head = lines[int(found[1]) - 1]
            indent = head[: len(head) - len(head.lstrip())] + " "  # of tabs, where these are
            # Before the line at which Python misses the block, or at the end
            lines.insert(
                min(error.lineno, len(lines)) - (error.lineno <= len(lines)), f"{indent}raise NotImplementedError"
            )
            source = "\n".join(lines).encode()
            empty.append(int(found[1]))
        except SyntaxError:
            text = source.decode("utf-8", "replace")
            python, said = python_of(text)
            if python == text:
                raise
            source, remarks = python.encode(), remarks + said


CELL = re.compile(r"(?m)^(?=# In ?\[[ \d]*\]:)")  # what stands above a cell where a notebook was made a script


def python_of(text):
    """(a notebook's code without what is not Python, remarks), cell by cell: one that is Python stays as it is.

    A cell that is none, and defines nothing, is left out; its lines stay, as empty ones.
    """
    cells, made, remarks = CELL.split(text), [], []
    for cell in cells:
        forms = cell, without_magics(cell), without_commands(without_magics(cell))
        kept = next(filter(is_python, forms), None)
        if kept is None and (len(cells) == 1 or re.search(r"(?m)^\s*(def|class)\s", cell)):
            kept = forms[2]
        elif kept is None:
            line = "".join(made).count("\n") + 1
            remarks.append(f"line {line}: a cell that is not Python and defines nothing: left out")
            kept = "\n" * cell.count("\n")
        made.append(kept)
    return "".join(made), remarks


def is_python(text):
    try:
        ast.parse(text)
        return True
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def without_magics(text):
    """A notebook's code with `pass` for what is not Python: %magics, !commands, questions such as nn.Linear?"""
    line = r"(?m)^([ \t]*)(?:%[A-Za-z%]|!(?!=)).*$|^([ \t]*)\??[\w.]+\?{1,2}[ \t]*$"
    return re.sub(line, r"\1\2pass", text)


def without_commands(text):
    """The same for commands without a !, as "pip install torch", and for names that take what a command says."""
    commands = r"(?m)^([ \t]*)(?:pip3?|conda|apt|apt-get|wget|git|cd|ls|mkdir|cp|mv|unzip)[ \t]+[\w./~-].*$"
    text = re.sub(commands, r"\1pass", text)
    return re.sub(r"(?m)^([ \t]*[\w, ]+=[ \t]*)[!%].*$", r"\1None", text)


def load(name, definitions_only):
    """(the submission's module, remarks). With definitions_only what it runs besides defining is left out."""
    path = os.path.abspath(f"{name}.py")
    sys.argv = [f"{name}.py"]
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, path))
    sys.modules[name] = module
    with open(path, "rb") as file:
        tree, remarks = readable(file.read(), path)
    flags = __future__.annotations.compiler_flag  # what annotations name need not be there
    if not definitions_only:
        tree.body, left_out = without_training(tree)
        exec(compile(tree, path, "exec", flags), module.__dict__)
        return module, remarks + left_out
    for statement in definitions(tree):
        with suppress(Exception, SystemExit):
            exec(compile(ast.Module([statement], []), path, "exec", flags), module.__dict__)
    return module, remarks


def without_training(tree):
    """(the top-level statements without calls that train and a notebook's magics, remarks on those that train)."""
    kept, remarks = [], []
    for node in tree.body:
        called = ast.unparse(node.value.func) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else ""
        if called.startswith("get_ipython("):
            continue
        if call := re.search(r"\b(main|train|run|fit)\w*$", called):
            remarks.append(
                f"line {node.lineno} calls {call[0]}() at import: left out. What trains belongs under "
                'if __name__ == "__main__":'
            )
            continue
        kept.append(node)
    return kept, remarks


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
    """What may be meant by the first of `names` and takes these arguments: functions, or methods of a class.

    A name is that of a function of the module and of a method of VAE, or "Class.method".
    """
    functions = []
    for name in names:
        owner, _, method = name.rpartition(".")
        if not owner and callable(getattr(module, name, None)):
            functions.append(getattr(module, name))
        owner = getattr(module, owner or "VAE", None)
        kind = inspect.getattr_static(owner, method, None)
        if isinstance(kind, (staticmethod, classmethod)):
            functions.append(getattr(owner, method))
        elif inspect.isfunction(kind):
            without_self = next(iter(inspect.signature(kind).parameters), "") != "self"
            if without_self and fits(kind, arguments):
                functions.append(kind)
            elif owner.__name__ == "VAE":
                functions.append(getattr(make_vae(module), method))
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


# ------------------------------------------------------------------------------------------------------- answers


def seed_all(seed):
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def describe(error):
    """The error in a line, with the place in the submission where it happened."""
    here = os.getcwd()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(here)]
    place = f" ({os.path.relpath(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
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
    if isinstance(value, GeneratorType):
        value = [each for each, _ in zip(value, range(1000))]
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(each, (torch.Tensor, np.ndarray, np.generic, float, int)) for each in value):
            value = torch.stack([torch.as_tensor(each) for each in value])
    if isinstance(value, (np.ndarray, np.generic, float, int)):
        value = torch.as_tensor(value)
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"a {type(value).__name__} is returned, expected a tensor")
    if value.numel() > LARGEST:
        raise ValueError(f"a tensor of shape {list(value.shape)} is returned")
    return value.detach().cpu().clone().contiguous()


def gradients(value, inputs):
    """d(sum of value)/d(input) for every input, None where none arrives. By backward(): an input may be frozen."""
    if not (isinstance(value, torch.Tensor) and value.requires_grad):
        return [None] * len(inputs)
    for each in inputs:
        each.grad = None
    value.sum().backward()
    return [None if each.grad is None else to_send(each.grad) for each in inputs]


def weights_from(vector, shapes):
    """Tensors of these shapes, filled from one vector of normal numbers: outputs of a layer are as large as inputs."""
    made, start = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        numbers = vector[(torch.arange(size) + start) % len(vector)].reshape(tuple(shape))
        made.append(numbers * (1.5 / np.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.3))
        start += size
    return made


def parameters_of(net):
    """The network's parameters, each weight before its bias, also where they are declared the other way round."""
    made, place = list(net.parameters()), 0
    while place + 1 < len(made):
        one, other = made[place : place + 2]
        # A student's own matrix may be [in,out]: then this is its bias
        own = place and made[place - 1].dim() == 2 and made[place - 1].shape[1] == len(one)
        if one.dim() == 1 and other.dim() > 1 and len(one) == len(other) and not own:
            made[place : place + 2] = other, one
        place += 2 if len(one) == len(other) and min(one.dim(), other.dim()) == 1 else 1
    return made


@torch.no_grad()
def fill(vector, *networks):
    parameters = [each for network in networks for each in parameters_of(network)]
    for each, numbers in zip(parameters, weights_from(vector, [each.shape for each in parameters])):
        each.copy_(numbers)


# ---------------------------------------------------------------------------------------------------- stand-ins


class PlainD(nn.Module):
    """A stand-in for a discriminator: one matrix; logits [B,1], or [B]."""

    def __init__(self, weight, flat=False):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.flat = flat

    def forward(self, x):
        logits = x.flatten(1) @ self.weight
        return logits[:, 0] if self.flat else logits


class PlainG(nn.Module):
    """A stand-in for a generator: one matrix, and images of any range."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, z):
        return (z @ self.weight).reshape(-1, 1, 28, 28)


class PlainScore(nn.Module):
    """A stand-in for a score network that remembers what it was asked and what it said."""

    def __init__(self, size, matrix, offset):
        super().__init__()
        self.size, self.asked = size, []
        self.matrix, self.offset = nn.Parameter(matrix.clone()), nn.Parameter(offset.clone())

    def forward(self, x, sigma):
        sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1).expand(len(x), 1)
        score = self.size * torch.sin(x @ self.matrix + self.offset) / sigma
        self.asked.append([to_send(x), to_send(sigma), to_send(score)])
        return score


def put_stubs(module, stubs):
    """Other functions in the place of both densities: sums of their arguments, and the product of the first two."""
    for name, weights in stubs.items():
        real = getattr(module, name, None) or getattr(getattr(module, "VAE", None), name, None)
        order = []
        with suppress(ValueError, TypeError):  # what torch.jit compiled has none
            order = list(inspect.signature(real).parameters)

        def stub(*arguments, weights=weights, order=order, **named):
            known = [each for each in order if each in named]
            arguments = [*arguments, *map(named.get, known or named)]
            values = [torch.as_tensor(each) for each in arguments[-len(weights) :]]
            return (values[0] * values[1] + sum(w * each for w, each in zip(weights, values))).sum(-1)

        setattr(module, name, stub)
        if hasattr(module, "VAE"):
            setattr(module.VAE, name, staticmethod(stub))


# ---------------------------------------------------------------------------------------------------------- jobs


def job_import(module, job):
    return {}


def job_calls(module, job):
    """Calls of functions, each on its own: the value, the gradients for its arguments, which of them were changed."""
    if job["stubs"]:
        put_stubs(module, job["stubs"])
    return {"calls": [guarded(call_one, module, call) for call in job["calls"]]}


def call_one(module, call):
    leaves = [PlainScore(**each) if isinstance(each, dict) else each for each in call["args"]]
    tensors = [number for number, each in enumerate(leaves) if isinstance(each, torch.Tensor)]
    score = next((each for each in leaves if isinstance(each, PlainScore)), None)
    leaves = [each.clone() if number in tensors else each for number, each in enumerate(leaves)]
    wanted = [leaves[number].requires_grad_() for number in call["grad"]]
    wanted += list(score.parameters()) if score else []
    # Copies are handed over, not leaves, which may not be changed in place: in training they are no leaves either
    arguments = [each.clone() if number in tensors else each for number, each in enumerate(leaves)]
    for function in (functions := candidates(module, call["names"], arguments)):
        seed_all(call["seed"])
        try:
            value = function(*arguments)
            break
        except NotImplementedError:
            if function is functions[-1]:
                raise
    sent = to_send(value)
    return {
        "value": sent,
        "changed": [number for number in tensors if not torch.equal(arguments[number], leaves[number])],
        "asked": score.asked if score else [],
        "grads": gradients(value, wanted),
    }


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


def initialise_again(net, seed):
    seed_all(seed)
    net._weight_init()
    return {"parameters": [to_send(each) for each in parameters_of(net)]}


def job_network(module, job):
    """A network as built with a seed, as _weight_init makes it again, and what it computes with given weights."""
    if not hasattr(module, job["class"]):
        raise AttributeError(f"there is no class {job['class']}")
    cls = getattr(module, job["class"])
    try:
        net, init_error = build(cls, job)
    except Exception:
        if job["inputs"]:
            raise
        net, init_error = some_layers(cls, job["seed"]), None
    answer = {
        "parameters": [to_send(each) for each in parameters_of(net)],
        "init_error": init_error,
        "kinds": [type(each).__name__ for each in net.modules()],
    }
    if init_error is None and hasattr(net, "_weight_init"):
        answer["again"] = guarded(lambda: initialise_again(copy.deepcopy(net), job["seed"]))
    fill(job["weights"], net)

    def forward(inputs):
        leaves = [each.clone().requires_grad_() for each in inputs]
        value = net(*[each.clone() for each in leaves])
        return {"value": to_send(value), "grads": gradients(value, [leaves[0], *parameters_of(net)])}

    answer["forward"] = [guarded(forward, inputs) for inputs in job["inputs"]]
    if job["other"]:
        init, x = job["other"]
        answer["other"] = guarded(lambda: {"value": to_send(cls(*init)(x))})
    return answer


def make_gan(module, job, which):
    """A GAN with the submission's own networks, or with stand-ins, so that its losses are judged without them."""
    if which == "own":
        gan = module.GAN(len(job["gen"]))
        fill(job["weights"], gan.disc, gan.gen)
        return gan
    networks = PlainD(job["disc"], flat=which == "flat"), PlainG(job["gen"])
    module.DNet, module.GNet = (lambda *_, net=net, **__: net for net in networks)
    try:
        gan = module.GAN(len(job["gen"]))
    except Exception:
        gan = module.GAN.__new__(module.GAN)
        gan._dev, gan._zdim = torch.device("cpu"), len(job["gen"])
    gan.disc, gan.gen = networks
    return gan


def loss_of(module, job, which, call):
    """One loss: its value, its gradients for D's and G's parameters, and whether it changed them by itself."""
    gan = make_gan(module, job, which)
    method = getattr(gan, job["method"], None) or getattr(module, job["method"])
    players = [list(network.parameters()) for network in (gan.disc, gan.gen)]
    parameters = sum(players, [])
    before = [each.detach().clone() for each in parameters]
    seed_all(call["seed"])
    arguments = [each.clone() if isinstance(each, torch.Tensor) else each for each in call["args"]]
    value = method(*arguments)
    trains = any(each.grad is not None for each in parameters) or not all(map(torch.equal, before, parameters))
    answer = {
        "value": to_send(value),
        "trains": trains,
        "changed": [
            number
            for number, each in enumerate(call["args"])
            if isinstance(each, torch.Tensor) and not torch.equal(each, arguments[number])
        ],
        "grads": [None] * len(parameters) if trains else gradients(value, parameters),
        "of_d": len(players[0]),
    }
    return answer


def own_says(module, job):
    """What the submission's own networks say of the real images, of their fakes, and of images far from both."""
    gan = make_gan(module, job, "own")
    z = job["calls"][0]["args"][-1]
    return {
        "fake": to_send(gan.disc(gan.gen(z))),
        "real": to_send(gan.disc(job["x"])),
        "far": to_send(gan.disc(job["far"])),
    }


def job_loss(module, job):
    """A loss of GAN for every call: with the submission's own networks, then with stand-ins."""
    answer = {"says": guarded(own_says, module, job)}
    for which in ("own", "column", "flat"):  # the stand-ins last: they replace the classes
        answer[which] = [guarded(loss_of, module, job, which, call) for call in job["calls"]]
    return answer


JOBS = {"import": job_import, "calls": job_calls, "network": job_network, "loss": job_loss}

# ---------------------------------------------------------------------------------------------------- processes

NEW_USER, NEW_PID, NEW_NET, NEW_IPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000


def isolate():
    """Whether the next process that this one forks is the first of new namespaces, and all others end with it."""
    user, group, libc = os.geteuid(), os.getegid(), ctypes.CDLL(None, use_errno=True)
    if user == 0:
        return libc.unshare(NEW_PID | NEW_NET | NEW_IPC) == 0
    if libc.unshare(NEW_USER | NEW_PID | NEW_NET | NEW_IPC) != 0:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True


def seen(yes):
    """Whether other processes of this user may look into this one, its memory and its pipes."""
    with suppress(OSError, AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(4, int(yes), 0, 0, 0)


def confine(job):
    """No terminal, no pipes, limited memory, files and processor time, a session of its own; for root another user."""
    import resource

    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, 1024)
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 64 * 2**20, resource.RLIMIT_CPU: int(job["seconds"]) + 1}
    with suppress(OSError), open("/proc/self/statm") as file:  # torch alone reserves gigabytes of addresses
        limits[resource.RLIMIT_AS] = int(file.read().split()[0]) * resource.getpagesize() + job["memory"]
    if job["user"] is not None:
        limits[resource.RLIMIT_NPROC] = 100
    for limit, value in limits.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value + (limit == resource.RLIMIT_CPU)))  # a signal that tells why
    if job["user"] is not None:
        become(job["user"])


def become(user):
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def may_become(user):
    """ "" if root can become this user, who can read the installed packages, else why not."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(user)
            for package in (os, torch, np):
                open(package.__file__).close()
        except OSError as error:
            os.write(writing, str(error).encode()[:1000])
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading) as file:
        return file.read()


def work(job):
    confine(job)
    os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), job["folder"]))
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    sys.meta_path.insert(0, CourseUtils)
    request = torch.load(job["request"], weights_only=True)

    def answer():
        start = time.process_time()
        with WithoutGPU():
            module, remarks = load(job["file"], job["definitions_only"])
            seconds = time.process_time() - start
            made = JOBS[request["job"]](module, request)
        if WithoutGPU.asked:
            remarks.append("asks for a GPU, which there is none of here: taken as the CPU")
        return {"seconds": seconds, "remarks": remarks, **made}

    torch.save(guarded(answer), job["answer"])


def attempt(job):
    """Run a job in a process of its own until it ends or its time is over; exit codes 0 to 255, or minus a signal."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            work(job)
            code = 0
        finally:
            os._exit(code)
    deadline, timed_out = time.monotonic() + 2.5 * job["seconds"], False  # of a busy machine
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline and not timed_out:
            timed_out = True
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return {"timed_out": timed_out, "code": os.waitstatus_to_exitcode(ended[1])}


def run(job):
    """How the job ended: {"timed_out": bool, "code": int, "clear": whether nothing that it started is left}."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            isolated = False
            with suppress(OSError, AttributeError):
                seen(True)  # else /proc/self would be root's
                isolated = isolate()
            seen(False)
            if isolated and (first := os.fork()):  # the first process of a namespace obeys few signals: no job itself
                os.waitpid(first, 0)
            else:
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 0), os.dup2(null, 1)  # the pipes to the grader are not for a neighbour of the job
                os.write(writing, json.dumps({**attempt(job), "clear": isolated}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as file:
        ended = json.loads(file.read() or "{}")
    os.waitpid(pid, 0)
    if not ended.get("clear"):
        ended["clear"] = end_all(job["user"])
    return {"timed_out": False, "code": -9, **ended}


def end_all(user, seconds=10):
    """End what a job has left, until nothing is: orphans become children of this process (PR_SET_CHILD_SUBREAPER)."""
    if user is not None and (pid := os.fork()) == 0:
        with suppress(OSError):
            become(user)
            os.kill(-1, signal.SIGKILL)  # all processes of the user that this box alone has, at once
        os._exit(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
            for child in file.read().split():
                with suppress(OSError):
                    if user is None or int(child) != pid:
                        os.kill(int(child), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
    return False


def serve(users, packages):
    """Import what all jobs need, say as whom they run, then run them."""
    for package in packages:  # once here, not in every job
        with suppress(Exception):
            importlib.import_module(package)
    torch.set_num_threads(1)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    seen(False)
    gc.collect()
    gc.freeze()
    why, user = "", None
    if os.geteuid() == 0:
        user = users[0] + os.getpid() % (users[1] - users[0])  # another one for each box
        why = may_become(user)
    print(json.dumps({"user": user, "why": why}), flush=True)
    while line := sys.stdin.readline():
        job = json.loads(line)
        print(json.dumps({**run(job), "number": job["number"]}), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), sys.argv[2:])
