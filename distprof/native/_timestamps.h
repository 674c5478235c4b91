/* Declares what the C files of the fast path share, and selects the limited API of Python 3.10 for them. */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* A type lists the objects that it holds in a macro FIELDS(X), as X(name). */
#define DECLARE_FIELD(name) PyObject *name;
#define OWN_FIELD(name) Py_XINCREF(self->name);
#define VISIT_FIELD(name) Py_VISIT(self->name);
#define CLEAR_FIELD(name) Py_CLEAR(self->name);

/* Defines what the garbage collector asks of the type: NAME_traverse and NAME_clear. */
#define COLLECTED(Type, NAME, FIELDS) \
    static int NAME##_traverse(PyObject *object, visitproc visit, void *arg) \
    { \
        Type *self = (Type *)object; \
        FIELDS(VISIT_FIELD) \
        Py_VISIT(Py_TYPE(object)); \
        return 0; \
    } \
    static int NAME##_clear(PyObject *object) \
    { \
        Type *self = (Type *)object; \
        FIELDS(CLEAR_FIELD) \
        return 0; \
    }

/* _timestamps.c */

/* Ends the running interval and begins one of `owner`: appends the time to `timestamps`, read by `now` where the buffer
 * does not read the clock itself, and `owner` to the list `owners`.  Returns -1 with an exception set. */
int switch_owner(PyObject *timestamps, PyObject *now, PyObject *owners, PyObject *owner);

/* Returns a hook that begins an interval of `owner`. */
PyObject *new_hook(PyObject *owner, PyObject *timestamps, PyObject *now, PyObject *owners, PyObject *in_backward,
                   PyObject *failed);

/* Adds the types of _timestamps.c to the module.  Returns -1 with an exception set. */
int add_timestamp_types(PyObject *module);

/* Adds one type to the module and returns a borrowed reference; NULL with an exception set. */
PyObject *add_type(PyObject *module, const char *name, PyType_Spec *spec);

/* Clears the exception that is set and returns it, with its traceback: a new reference. */
PyObject *take_exception(void);

/* Returns the items in twice as much memory, and sets their capacity; NULL with an exception set, nothing changed. */
void *more_room(void *items, Py_ssize_t *capacity, size_t item_bytes);

/* Frees an object of a type that supports garbage collection. */
void free_collected(PyObject *object, inquiry clear);

/* _node_hooks.c */

/* Whether this is a NodeHooks object. */
int is_node_hooks(PyObject *object);

/* Returns the sequence number of a node; -1 with an exception set. */
int64_t number_of(PyObject *node);

/* Compares a number with the highest one of the nodes that have the hook in this step: 1 above, 0 equal, -1 below. */
int is_highest(PyObject *hooks, int64_t number);

/* Registers the hook on the node with this number, if it has none.  Returns -1 with an exception set. */
int add_node(PyObject *hooks, PyObject *node, int64_t number, PyObject *row);

/* Adds the type of _node_hooks.c to the module.  Returns -1 with an exception set. */
int add_node_hook_type(PyObject *module);

/* _expert_rows.c */

/* Whether this is a RowReader. */
int is_row_reader(PyObject *object);

/* Counts the rows of the input of the reader's expert, which is about to be called.  Returns -1 with an exception set. */
int count_rows(PyObject *reader, PyObject *args, PyObject *kwargs);

/* Adds the types of _expert_rows.c to the module.  Returns -1 with an exception set. */
int add_expert_row_types(PyObject *module);

/* _id_counts.c */

/* A function of the module: counts the ids of experts. */
PyObject *count_ids(PyObject *module, PyObject *args);
