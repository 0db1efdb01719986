# The compiled part, as native/build_native.py makes it; cffi's objects have no types of their own.
from typing import Any

ffi: Any
lib: Any
