/* The hooks at which the backward of modules begins: does what NodeHooks of node_hooks.py does.
 *
 * Each row has one hook, which knows its owner: to ask torch for the node that runs would cost more than all the rest.
 */
#include "_timestamps.h"

#include <string.h>

/* The same value as in distprof.flops.long_graphs. */
#define FREED_BY_RECURSION 2000

#define ARGUMENTS(X) \
    X(timestamps) \
    X(now) \
    X(owners) \
    X(in_backward)  /* list, empty outside of backward: a graph may outlive the window */ \
    X(failed)       /* function that reports an exception, which would otherwise reach the user's backward */ \
    X(new_carrier)  /* function of a hook: returns a tensor that has it */ \
    X(keep_edges)   /* function of a node, for those of long graphs */ \
    X(nobody)       /* the owner of time outside of modules */

#define FIELDS(X) \
    ARGUMENTS(X) \
    X(outside) /* the tensor with the hook of `nobody`, once there is one */

typedef struct {
    PyObject_HEAD
    FIELDS(DECLARE_FIELD)
    PyObject **carriers; /* by row: the tensor with its hook, or NULL */
    Py_ssize_t rows;     /* the length of `carriers` */
    int64_t *numbers;    /* of the nodes that have a hook in this step, ascending */
    Py_ssize_t size, capacity;
} NodeHooks;

COLLECTED(NodeHooks, fields, FIELDS)

static PyTypeObject *hooks_type;
static PyObject *s_sequence_nr, *s_register;

int is_node_hooks(PyObject *object)
{
    return Py_TYPE(object) == hooks_type;
}

/* Returns where the tensor with the hook of a row is, or will be; NULL with an exception set. */
static PyObject **place_of_carrier(NodeHooks *self, PyObject *row, long long number)
{
    if (PyObject_RichCompareBool(row, self->nobody, Py_EQ) == 1)
        return &self->outside;
    if (number < 0 || number >= 1 << 30) {
        PyErr_SetString(PyExc_ValueError, "no such row");
        return NULL;
    }
    if (number >= self->rows) {
        Py_ssize_t rows = 2 * number + 64;
        PyObject **room = PyMem_Realloc(self->carriers, rows * sizeof *room);
        if (room == NULL)
            return (PyObject **)PyErr_NoMemory();
        memset(room + self->rows, 0, (rows - self->rows) * sizeof *room);
        self->carriers = room;
        self->rows = rows;
    }
    return &self->carriers[number];
}

static PyObject *new_hook_of(NodeHooks *self, PyObject *owner)
{
    return new_hook(owner, self->timestamps, self->now, self->owners, self->in_backward, self->failed);
}

/* Makes the tensor with the hook of a row. */
static PyObject *new_carrier(NodeHooks *self, PyObject *row, long long number)
{
    PyObject *owner = number < 1 << 30 ? PyLong_FromLongLong(~number) : Py_NewRef(row); /* else `nobody` */
    PyObject *hook = owner == NULL ? NULL : new_hook_of(self, owner);
    PyObject *carrier = hook == NULL ? NULL : PyObject_CallFunctionObjArgs(self->new_carrier, hook, NULL);
    Py_XDECREF(owner);
    Py_XDECREF(hook);
    return carrier;
}

/* Returns a borrowed reference to the tensor with the hook of a row; NULL with an exception set. */
static PyObject *carrier_of(NodeHooks *self, PyObject *row)
{
    long long number = PyLong_AsLongLong(row);
    PyObject **place = PyErr_Occurred() ? NULL : place_of_carrier(self, row, number);
    if (place != NULL && *place == NULL) {
        PyObject *carrier = new_carrier(self, row, number);
        place = place_of_carrier(self, row, number); /* what is called may have moved it */
        if (place != NULL)
            *place = carrier;
    }
    return place == NULL ? NULL : *place;
}

/* Returns the place of the first number that is not below `number`. */
static Py_ssize_t place_of(NodeHooks *self, int64_t number)
{
    Py_ssize_t low = 0, high = self->size;
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (self->numbers[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int is_highest(PyObject *object, int64_t number)
{
    NodeHooks *self = (NodeHooks *)object;
    int64_t highest = self->size > 0 ? self->numbers[self->size - 1] : -1;
    return number > highest ? 1 : number == highest ? 0 : -1;
}

static int insert(NodeHooks *self, Py_ssize_t place, int64_t number)
{
    int64_t *room =
        self->size < self->capacity ? self->numbers : more_room(self->numbers, &self->capacity, sizeof *room);
    if (room == NULL)
        return -1;
    self->numbers = room;
    memmove(room + place + 1, room + place, (self->size - place) * sizeof *room);
    room[place] = number;
    self->size++;
    return 0;
}

static int register_on(NodeHooks *self, PyObject *node, PyObject *carrier)
{
    if (self->size > FREED_BY_RECURSION) {
        PyObject *done = PyObject_CallFunctionObjArgs(self->keep_edges, node, NULL);
        Py_XDECREF(done);
        if (done == NULL)
            return -1;
    }
    PyObject *done = PyObject_CallMethodObjArgs(node, s_register, carrier, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

int add_node(PyObject *object, PyObject *node, int64_t number, PyObject *row)
{
    NodeHooks *self = (NodeHooks *)object;
    Py_ssize_t place = is_highest(object, number) > 0 ? self->size : place_of(self, number);
    if (place < self->size && self->numbers[place] == number)
        return 0;
    PyObject *carrier = carrier_of(self, row);
    return carrier == NULL || insert(self, place, number) < 0 ? -1 : register_on(self, node, carrier);
}

/* Calls the method of a node that returns its number.  Returns -1 with an exception set. */
int64_t number_of(PyObject *node)
{
    PyObject *number = PyObject_CallMethodObjArgs(node, s_sequence_nr, NULL);
    int64_t found = number == NULL ? -1 : PyLong_AsLongLong(number);
    Py_XDECREF(number);
    return found;
}

/* add(node, row): when the gradient arrives at the node, the backward of the row begins. */
static PyObject *hooks_add(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    if (count != 2)
        PyErr_SetString(PyExc_TypeError, "add(node, row)");
    int64_t number = count != 2 ? -1 : number_of(given[0]);
    if (PyErr_Occurred() || add_node(object, given[0], number, given[1]) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* begin(): a step begins. */
static PyObject *hooks_begin(PyObject *object, PyObject *unused)
{
    ((NodeHooks *)object)->size = 0;
    Py_RETURN_NONE;
}

/* hook(owner): returns the hook of parameters. */
static PyObject *hooks_hook(PyObject *object, PyObject *owner)
{
    return new_hook_of((NodeHooks *)object, owner);
}

static PyObject *hooks_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
#define X(name) #name,
    static char *names[] = {ARGUMENTS(X) NULL};
#undef X
    NodeHooks *self = (NodeHooks *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    int whole = PyArg_ParseTupleAndKeywords(args, kwargs, "OOO!O!OOOO", names, &self->timestamps, &self->now,
                                            &PyList_Type, &self->owners, &PyList_Type, &self->in_backward,
                                            &self->failed, &self->new_carrier, &self->keep_edges, &self->nobody);
    ARGUMENTS(OWN_FIELD)
    if (!whole) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int hooks_traverse(PyObject *object, visitproc visit, void *arg)
{
    NodeHooks *self = (NodeHooks *)object;
    for (Py_ssize_t row = 0; row < self->rows; row++)
        Py_VISIT(self->carriers[row]);
    return fields_traverse(object, visit, arg);
}

static int hooks_clear(PyObject *object)
{
    NodeHooks *self = (NodeHooks *)object;
    for (Py_ssize_t row = 0; row < self->rows; row++)
        Py_CLEAR(self->carriers[row]);
    return fields_clear(object);
}

static void hooks_finish(PyObject *object)
{
    NodeHooks *self = (NodeHooks *)object;
    PyObject_GC_UnTrack(object);
    hooks_clear(object);
    PyMem_Free(self->carriers);
    PyMem_Free(self->numbers);
    free_collected(object, fields_clear);
}

static PyMethodDef hooks_methods[] = {
    {"add", (PyCFunction)(void (*)(void))hooks_add, METH_FASTCALL, NULL},
    {"begin", hooks_begin, METH_NOARGS, NULL},
    {"hook", hooks_hook, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot hooks_slots[] = {
    {Py_tp_new, hooks_make},     {Py_tp_dealloc, hooks_finish}, {Py_tp_traverse, hooks_traverse},
    {Py_tp_clear, hooks_clear},  {Py_tp_methods, hooks_methods}, {0, NULL},
};

static PyType_Spec hooks_spec = {
    .name = "distprof.native._fast_path.NodeHooks",
    .basicsize = sizeof(NodeHooks),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = hooks_slots,
};

int add_node_hook_type(PyObject *module)
{
    s_sequence_nr = PyUnicode_InternFromString("_sequence_nr");
    s_register = PyUnicode_InternFromString("_register_hook_dict");
    hooks_type = (PyTypeObject *)add_type(module, "NodeHooks", &hooks_spec);
    return s_sequence_nr == NULL || s_register == NULL || hooks_type == NULL ? -1 : 0;
}
