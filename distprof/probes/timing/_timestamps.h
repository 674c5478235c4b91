/* Declares what _timestamps.c provides to _fast_path.c, and selects the limited API of Python 3.10 for both. */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Ends the running interval and begins one of `owner`: appends the time to `timestamps`, read by `now` where the buffer
 * does not read the clock itself, and `owner` to the list `owners`.  Returns -1 with an exception set. */
int switch_owner(PyObject *timestamps, PyObject *now, PyObject *owners, PyObject *owner);

/* Adds the types of _timestamps.c to the module.  Returns -1 with an exception set. */
int add_timestamp_types(PyObject *module);

/* Adds one type to the module and returns a borrowed reference; NULL with an exception set. */
PyObject *add_type(PyObject *module, const char *name, PyType_Spec *spec);

/* Clears the exception that is set and returns it, with its traceback: a new reference. */
PyObject *take_exception(void);

/* Frees an object of a type that supports garbage collection. */
void free_collected(PyObject *object, inquiry clear);
