"""Callables that run code or access the system, which no weights file has a reason to name.

The pickle reader never imports anything, so these names are harmless here. They are not in ``torch.load``, so the
user is warned. The reader's safety does not depend on this list.

Names from ordinary training code (callbacks, schedulers, paths, loggers) are not listed, nor are common names of
users' own modules, such as ``code`` or ``profile``: legitimate checkpoints are full of them.
"""

from __future__ import annotations

__all__ = ["is_unsafe"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules that are refused as a whole, with their submodules.
_MODULES = _words(
    # Processes, files and the system. os is pickled as posix or nt.
    "os posix nt sys subprocess _posixsubprocess popen2 shutil pty multiprocessing ctypes _ctypes cffi "
    "winreg _winapi msvcrt "
    # Loading, compiling, running and debugging code.
    "importlib imp _imp runpy pkgutil zipimport zipapp marshal codeop bdb pdb cProfile timeit doctest pydoc "
    "compileall py_compile ensurepip pip distutils venv lib2to3 idlelib asyncio _osx_support _aix_support _pyrepl "
    # Nested pickles.
    "pickle _pickle cPickle dill cloudpickle joblib jsonpickle shelve "
    # The network and the browser.
    "socket _socket ssl http httplib urllib urllib2 urllib3 requests aiohttp httpx ftplib smtplib imaplib poplib "
    "telnetlib xmlrpc webbrowser antigravity "
    # Parts of numpy and torch that load files or compile code.
    "numpy.f2py numpy.testing numpy.distutils torch.hub torch.package torch.jit.unsupported_tensor_ops "
    "torch._inductor.codecache torch._dynamo.guards torch.utils.cpp_extension torch.utils.collect_env "
    "torch.utils.bottleneck torch.utils._config_module torch.fx.experimental.symbolic_shapes"
)

_BUILTINS = _words(
    "eval exec execfile compile open file input raw_input __import__ getattr setattr delattr apply reload globals "
    "locals breakpoint exit quit"
)

# Single names in otherwise harmless modules.
_NAMES = {
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
    "operator": _words("attrgetter methodcaller"),
    "_operator": _words("attrgetter methodcaller"),
    "functools": _words("partial partialmethod reduce"),
    "_functools": _words("partial reduce"),
    "types": _words("FunctionType LambdaType CodeType MethodType ModuleType"),
    "io": _words("open open_code FileIO"),
    "_io": _words("open open_code FileIO"),
    "codecs": _words("open"),
    "code": _words("interact InteractiveInterpreter InteractiveConsole"),
    "commands": _words("getoutput getstatusoutput"),
    "copyreg": _words("add_extension pickle"),
    "logging": _words("FileHandler config"),
    "numpy": _words("load save fromfile memmap"),
    "pandas": _words("read_pickle eval"),
    "platform": _words("popen"),
    "profile": _words("run runctx Profile"),
    "threading": _words("Thread"),
    "torch": _words("load save"),
    "torch._utils": _words("_import_dotted_name"),
    "torch.jit": _words("load"),
    "torch.serialization": _words("load save"),
    "torch.utils.data.datapipes.utils.decoder": _words("basichandlers"),
    "trace": _words("Trace"),
    "uuid": _words("_get_command_stdout"),
}

# Modules that are also dangerous as an attribute of another one, as in ``torch.serialization os.system``.
_ROOTS = _words("os posix nt sys subprocess builtins importlib shutil ctypes runpy")

# Steps from a harmless object to the interpreter's internals.
_ATTRIBUTES = _words("__globals__ __builtins__ __subclasses__ __code__ __import__")


def is_unsafe(module: str, name: str) -> bool:
    """Whether the global that a pickle names is, or leads to, a known dangerous callable."""
    parts = f"{module}.{name}".split(".")
    for end, part in enumerate(parts):
        parent = ".".join(parts[:end])
        if part in _NAMES.get(parent, ()) or (f"{parent}.{part}" if parent else part) in _MODULES:
            return True
    return not (_ROOTS.isdisjoint(name.split(".")) and _ATTRIBUTES.isdisjoint(parts))
