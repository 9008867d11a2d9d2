from __future__ import annotations

import pytest

from vae_lab.formats.unsafe_globals import is_unsafe


@pytest.mark.parametrize(
    "path",
    [
        *(
            "os system",
            "posix system",
            "nt system",
            "os.path join",
            "subprocess Popen",
            "sys modules",
            "runpy run_path",
        ),
        *("builtins eval", "builtins exec", "builtins getattr", "builtins __import__", "builtins compile"),
        *("builtins open", "__builtin__ eval", "__builtin__ apply", "builtins eval.__call__"),
        *("importlib import_module", "importlib.util find_spec", "socket socket", "webbrowser open", "shutil rmtree"),
        *("pty spawn", "ctypes CDLL", "torch load", "torch.hub load", "torch.serialization load", "pickle loads"),
        *("_pickle Unpickler", "types FunctionType", "types CodeType", "operator attrgetter", "_operator methodcaller"),
        *("functools partial", "numpy load", "numpy.f2py.crackfortran getlincoef", "code InteractiveInterpreter"),
        *(
            "torch os.system",
            "torch.serialization os",
            "collections abc.sys.modules",
            "x y.__globals__",
            "timeit timeit",
        ),
    ],
)
def test_dangerous(path):
    assert is_unsafe(*path.split(" "))


@pytest.mark.parametrize(
    "path",
    [
        *("torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict", "torch device"),
        *(
            "torch._utils _rebuild_parameter",
            "builtins set",
            "builtins slice",
            "__builtin__ object",
            "copyreg _reconstructor",
        ),
        *("pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint", "numpy.core.multiarray scalar"),
        *("numpy dtype", "numpy ndarray", "_codecs encode", "pathlib PosixPath", "argparse Namespace", "uuid UUID"),
        *("omegaconf.dictconfig DictConfig", "ldm.modules.losses LPIPS", "__main__ Config", "datetime datetime"),
        *("code Trainer", "profile Settings", "test Case", "trace Recorder", "my.os Thing", "operator itemgetter"),
        *("torch.optim.adamw AdamW", "torch.nn.modules.linear Linear", "functools.wraps x", "ostrich Feather"),
    ],
)
def test_ordinary(path):
    assert not is_unsafe(*path.split(" "))
