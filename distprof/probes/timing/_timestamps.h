/* What _timestamps.c gives to _fast_path.c, and the limits that both keep: the API that all Pythons from 3.10 on share. */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* The time is `owner`'s from now on: `stamps` takes the moment, which `now` tells where they have no clock of their
 * own, and the list `owners` whose it is.  -1 with an exception set. */
int take_turn(PyObject *stamps, PyObject *now, PyObject *owners, PyObject *owner);

/* Adds the types of _timestamps.c to the module.  -1 with an exception set. */
int add_turns(PyObject *module);

/* Adds one type to the module, and returns it, borrowed; NULL with an exception set. */
PyObject *add_type(PyObject *module, const char *name, PyType_Spec *spec);

/* The exception that is set, with its traceback, a new reference; it is set no longer. */
PyObject *take_exception(void);

/* Frees an object of a type that takes part in the collection of garbage. */
void free_collected(PyObject *object, inquiry clear);
